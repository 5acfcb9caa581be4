"""Damaged and hostile checkpoints: each one loads or is refused in a sentence, and nothing else."""

import os
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
from random_weights import TINY, random_weights

from dav.errors import DavError
from dav.weights.load import load_weights
from dav.weights.save import save_official

SLOWEST_S = 5.0
MEMORY_MB = 300
MUTATIONS = 60  # of each file


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for suffix in (".pth", ".safetensors"):
        save_official(folder / f"tiny{suffix}", random_weights(TINY, 0))
    return folder


def attempt(path):
    """Loads a file; returns its weights, or the sentence of the DavError. Nothing else may happen,
    and not much time and memory may go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    try:
        outcome = load_weights(path)
    except DavError as error:
        outcome = str(error)
        assert path.name in outcome and "\n" not in outcome
    assert time.monotonic() - start < SLOWEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_MB * 1024
    return outcome


def mutate(content, rng):
    """One random damage of a file's bytes."""
    content = bytearray(content)
    # Half of the damage falls on the first and last kilobytes: headers and directories.
    end = rng.choice((2_000, len(content)))
    at = int(rng.integers(end))
    at = at if rng.random() < 0.6 else len(content) - 1 - at
    kind = rng.choice(("flip", "bytes", "cut", "repeat", "zero", "swap"))
    if kind == "flip":
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == "bytes":
        for position in rng.integers(max(0, at - 50), min(len(content), at + 50), 5):
            content[position] = rng.integers(256)
    elif kind == "cut":
        del content[at:]
    elif kind == "repeat":
        content[at:at] = content[at : at + 500]
    elif kind == "zero":
        content[at : at + 16] = bytes(16)
    else:
        content[:500], content[at : at + 500] = content[at : at + 500], content[:500]
    return bytes(content)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_mutated_checkpoints_load_or_are_refused(originals, tmp_path, suffix):
    content = (originals / f"tiny{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for index in range(MUTATIONS):
        path = tmp_path / f"{index}{suffix}"
        path.write_bytes(mutate(content, rng))
        refused += isinstance(attempt(path), str)
        path.unlink()
    assert refused > MUTATIONS // 4


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 5_000, -1])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_cut_checkpoints_are_refused(originals, tmp_path, suffix, kept):
    content = (originals / f"tiny{suffix}").read_bytes()[:kept]
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content)
    assert isinstance(attempt(path), str)


def test_formats_under_each_others_suffix_are_refused(originals, tmp_path):
    for held, named in ((".pth", ".safetensors"), (".safetensors", ".pth")):
        path = tmp_path / f"swapped{named}"
        path.write_bytes((originals / f"tiny{held}").read_bytes())
        assert "damaged or not" in attempt(path) or "is not a checkpoint" in attempt(path)


def write_archive(path, program, values=b"\0" * 64, **options):
    """A file as torch.save lays it out around a given pickle."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("evil/data.pkl", program)
        archive.writestr("evil/data/0", values)


class Reduces:
    """Pickles as a call of anything."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_calls_something_is_refused_unrun(tmp_path, protocol, zipped):
    marker = tmp_path / "ran"
    for name, call in {
        "system": (os.system, (f"touch {marker}",)),
        "eval": (eval, (f"open({str(marker)!r}, 'w')",)),
        "open": (open, (str(marker), "w")),
        "import": (__import__, ("antigravity",)),
    }.items():
        path = tmp_path / f"{name}.pth"
        program = pickle.dumps({"pretrained.cls_token": Reduces(*call)}, protocol)
        if zipped:
            write_archive(path, program)
        else:
            path.write_bytes(program)
        told = attempt(path)
        assert isinstance(told, str) and not marker.exists()
        if zipped and protocol:
            assert "holds more than tensors" in told and call[0].__name__ in told


def tensor(offset=0, shape=(4,), strides=(1,), count=16, key="0"):
    """The part of a pickle that describes one tensor; numbers up to 64 bits."""

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    storage += number(count) + b"tQ"
    rest = number(offset) + numbers(shape) + numbers(strides) + b"\x89}t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"R"


def state(*tensors):
    entries = b"".join(
        b"X" + struct.pack("<I", 2) + f"{i:02d}".encode() + part for i, part in enumerate(tensors)
    )
    return b"\x80\x02}(" + entries + b"u."


OUTSIDE = {
    "beyond": tensor(offset=13),
    "before": tensor(offset=-1),
    "negative": tensor(shape=(-4,)),
    "backwards": tensor(strides=(-1,)),
    "strides": tensor(shape=(4, 4), strides=(16, 1)),
    "huge": tensor(shape=(2**40,), strides=(0,)),
    "overflow": tensor(shape=(2**32, 2**32), strides=(0, 0)),
    "claimed": tensor(shape=(2**40,), count=2**40),
    "uneven": tensor(shape=(2, 2)),
    "elsewhere": tensor(key="../data.pkl"),
    "empty": tensor(shape=(0,)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_tensors_outside_their_values_are_refused(tmp_path, name):
    path = tmp_path / "outside.pth"
    write_archive(path, state(OUTSIDE[name]))
    assert "is damaged" in attempt(path)


PROGRAMS = {
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "memo of no value": b"\x80\x02h\x05.",
    "bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "nothing": b"",
    "no end": b"\x80\x02}}}}",
    "groups": b"\x80\x02" + b"t" * 1000 + b".",
    "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "doubling": b"\x80\x02)" + b"q\x00h\x00\x86" * 200 + b"}q\x01h\x000h\x01K\x01s.",
    "itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "mutates": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
    "many": state(*[tensor()] * 99, tensor(shape=(16,))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_programs_are_refused(tmp_path, name):
    path = tmp_path / "hostile.pth"
    write_archive(path, PROGRAMS[name])
    assert isinstance(attempt(path), str)


def test_aliases_of_one_storage_do_not_multiply(tmp_path):
    path = tmp_path / "alias.pth"
    values = bytes(4 * 1_000_000)
    view = tensor(shape=(1_000_000,), count=1_000_000)
    write_archive(path, state(*[view] * 99), values)
    assert "more values than it holds" in attempt(path)


def test_a_compressed_archive_is_not_unfolded(tmp_path):
    path = tmp_path / "bomb.pth"
    program = state(tensor(shape=(2**24,), count=2**24))
    write_archive(path, program, bytes(2**28), compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    assert path.stat().st_size < 2**22
    assert "is compressed" in attempt(path)


def test_a_safetensors_header_that_claims_too_much_is_refused(tmp_path):
    path = tmp_path / "claims.safetensors"
    for header in (
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":' * 10_000,
        b"[]",
    ):
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        assert "is damaged" in attempt(path)
    path.write_bytes(struct.pack("<Q", 2**63) + bytes(64))
    assert "is damaged" in attempt(path)
