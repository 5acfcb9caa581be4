import dataclasses
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from dav.data import pipeline, slots, sources
from dav.data.examples import decode_target, encode_example, features
from dav.data.frames import DEPTH_M, DISPARITY, Frame, Target
from dav.errors import ConfigError, DavError

IMAGES = 15


@dataclasses.dataclass(frozen=True)
class Shard:
    """The records of an ArrayRecord file."""

    path: str

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        from grain.sources import ArrayRecordDataSource

        return features().deserialize_example_np(ArrayRecordDataSource([self.path])[index])


def write_shard(path, quantity, seed):
    """Images of different sizes as JPEG, with targets."""
    rng, form = np.random.default_rng(seed), features()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for number in range(IMAGES):
        height, width = (int(side) for side in rng.integers(100, 450, 2))
        blocks = rng.integers(0, 256, (9, 9, 3), np.uint8)
        image = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC)
        values = rng.uniform(1, 9, (height, width)).astype(np.float32)
        target = Target(quantity, values, rng.random((height, width)) < 0.7)
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        record = encode_example(Frame(f"{path.name}/{number}", jpeg, target), jpeg)
        writer.write(form.serialize_example(form.encode_example(record)))
    writer.close()
    return sources.Decoded(Shard(str(path)), decode_target)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    made = [write_shard(folder / "a", DEPTH_M, 0), write_shard(folder / "b", DISPARITY, 1)]
    return {"labelled": made, "unlabelled": made[1:]}


def batches(parts, *, sizes=(4, 8), **options):
    settings = {"seed": 3, "short_side_px": 98, "crop_px": (98, 112)} | options
    return pipeline.make_batches(parts, dict(zip(parts, sizes, strict=True)), **settings)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for kind, name in itertools.product(one, ("image", "disparity", "valid")):
        np.testing.assert_array_equal(one[kind][name], other[kind][name])


def joined(parts):
    """The global batch of processes that read its rows one after the other."""
    return {
        kind: {
            name: np.concatenate([part[kind][name] for part in parts]) for name in parts[0][kind]
        }
        for kind in parts[0]
    }


def rows(process, processes, sizes=(4, 8)):
    """An even share of a batch of so many images by kind."""
    return {
        kind: range(process * size // processes, (process + 1) * size // processes)
        for kind, size in zip(("labelled", "unlabelled"), sizes, strict=True)
    }


def test_every_batch_has_its_exact_share_of_each_kind(parts):
    batch = batches(parts)[5]
    for kind, images in (("labelled", 4), ("unlabelled", 8)):
        found = {name: (a.shape, a.dtype.name) for name, a in batch[kind].items()}
        assert found == {
            "image": ((images, 98, 112, 3), "uint8"),
            "disparity": ((images, 98, 112), "float32"),
            "valid": ((images, 98, 112), "bool"),
        }
        assert (batch[kind]["disparity"][batch[kind]["valid"]] > 0).all()


def test_every_step_and_seed_has_other_examples(parts):
    images = [batches(parts)[step]["labelled"]["image"] for step in (0, 1, 10**6)]
    images += [batches(parts, seed=4)[0]["labelled"]["image"]]
    assert not any((a == b).all() for a, b in itertools.combinations(images, 2))


@pytest.mark.parametrize("weights", [None, {"labelled": (1, 3)}])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_read_the_batch_of_one(parts, processes, weights):
    whole = batches(parts, weights=weights)[7]
    each = [batches(parts, weights=weights, rows=rows(p, processes)) for p in range(processes)]
    assert_equal(joined([mine[7] for mine in each]), whole)


def test_weights_set_the_share_of_each_set(parts):
    order = batches(parts, weights={"labelled": (1, 3)}).shares["labelled"].order
    names = [order[index]["id"][0] for index in range(40)]
    assert all(names[start : start + 4].count("a") == 1 for start in range(0, 40, 4))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_make_the_same_batches(parts, workers):
    direct = batches(parts)
    with pipeline.reading(direct, 3, 9, processes=workers) as ahead:
        held = list(ahead)  # more of them than a worker has slots
    assert len(held) == 6
    for step, batch in enumerate(held, 3):
        assert_equal(batch, direct[step])


def test_a_run_resumed_with_other_processes_and_workers_continues_exactly(parts):
    straight = batches(parts)
    resumed = [batches(parts, rows=rows(p, 2)) for p in range(2)]
    with (
        pipeline.reading(resumed[0], 4, 7, processes=2) as first,
        pipeline.reading(resumed[1], 4, 7) as second,
    ):
        for step, both in enumerate(zip(first, second, strict=True), 4):
            assert_equal(joined(both), straight[step])


def open_files():
    """What a worker and its memory would leave behind."""
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    return {name for name in shared if name.startswith("psm_")}, len(os.listdir("/proc/self/fd"))


def test_leaving_early_leaves_nothing_behind(parts):
    with pipeline.reading(batches(parts), 0, 1, processes=1) as ahead:
        next(ahead)  # what Grain and Python keep for all later ones is there now
    before = open_files()
    with pipeline.reading(batches(parts), 0, 10**9, processes=2) as ahead:
        kept = next(ahead)["labelled"]["image"]
        copy = kept.copy()
        assert len(multiprocessing.active_children()) == 2
    np.testing.assert_array_equal(kept, copy)
    del kept  # it keeps the memory, which has no name
    assert not multiprocessing.active_children() and open_files() == before
    with pipeline.reading(batches(parts), 3, 3, processes=2) as ahead:
        assert list(ahead) == []


class Refusing(Exception):
    """An error that does not survive being sent to another process."""

    def __reduce__(self):
        raise TypeError("cannot be pickled")


@dataclasses.dataclass(frozen=True)
class Failing:
    """Batches that fail at one step."""

    whole: pipeline.Batches
    step: int
    what: str

    def __len__(self):
        return len(self.whole)

    def shapes(self):
        return self.whole.shapes()

    def read(self, step, into):
        if step == self.step:
            if self.what == "damaged":
                raise ConfigError("record 7 of data set b cannot be read")
            if self.what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "jax":
                backends = sys.modules["jax"]._src.xla_bridge._backends
                raise DavError(f"{os.environ['JAX_PLATFORMS']} {backends}")
            raise Refusing(step)
        self.whole.read(step, into)


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("damaged", ConfigError, "record 7 of data set b cannot be read"),
        ("killed", DavError, "was killed.*config.data.workers"),
        ("unsendable", RuntimeError, "test_pipeline.Refusing: 1"),
        ("jax", DavError, "cpu {}"),  # no accelerator is touched
    ],
)
def test_what_goes_wrong_in_a_worker_is_raised_here(parts, what, kind, message):
    failing = Failing(batches(parts), 1, what)
    with (
        pytest.raises(kind, match=message),
        pipeline.reading(failing, 0, 100, processes=1) as ahead,
    ):
        next(ahead)
        next(ahead)
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, os, signal, sys, time
sys.path.insert(0, {here!r})
from test_pipeline import Numbers
from dav.data import workers

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    with workers.reading(Numbers(), 0, 10**9, 1) as ahead:
        next(ahead)
        os.killpg(0, signal.SIGINT)
        os.killpg(0, signal.SIGTERM)
        for step in range(1, 20):
            assert next(ahead)["all"]["step"][0] == step
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Numbers:
    """Batches of their step's number."""

    def __len__(self):
        return sys.maxsize

    def shapes(self):
        return {"all": {"step": ((1000,), "int64")}}

    def read(self, step, into):
        into["all"]["step"][:] = step


def test_workers_ignore_signals_to_the_group_and_end_with_their_parent(tmp_path, environment):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    root = str(Path(__file__).parents[2])
    process = subprocess.run(
        [sys.executable, script],
        env=environment | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert process.returncode == -signal.SIGKILL
    worker, deadline = int(process.stdout), time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid):
    """Whether there is such a process, and not just its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_slot_is_free_again_once_nothing_of_its_batch_is_in_use():
    memory = slots.Slots(3, {"all": {"image": ((5, 7), "uint8"), "step": ((3,), "int64")}})
    filled = memory.place.map()  # as the worker sees it
    for value in range(3):
        number = slots.take(filled, 3)
        memory.place.arrays(memory.place.slot(filled, number))["all"]["image"][:] = value
        assert number == value
    first, second = memory.batch(0)["all"]["image"][1:], memory.batch(1)
    copied = memory.batch(2)  # all slots would be in use
    assert slots.take(filled, 3) == 2
    memory.place.slot(filled, 2)[:] = 9
    assert (first == 0).all() and (copied["all"]["image"] == 2).all()
    del first
    assert slots.take(filled, 3) == 0
    del second
    assert slots.take(filled, 3) == 1
    memory.close()
    with pytest.raises(InterruptedError):
        slots.take(filled, 3)


def test_labels_stand_one_for_one_beside_their_images(parts):
    examples = parts["unlabelled"][0]
    ids = [examples[i]["id"] for i in range(IMAGES)]
    labels = [
        {"id": name, "disparity": np.full((50, 60), i + 1.0), "valid": np.ones((50, 60), bool)}
        for i, name in enumerate(ids)
    ]
    paired = sources.WithLabels(examples, labels)
    assert [paired[i]["disparity"][0, 0] for i in (0, 7)] == [1, 8]
    with pytest.raises(DavError, match="belongs to"):
        sources.WithLabels(examples, labels[1:])[0]


def test_sources_pickle(parts):
    copy = pickle.loads(pickle.dumps(sources.Concatenated(tuple(parts["labelled"]))))
    assert len(copy) == 2 * IMAGES and copy[IMAGES]["id"] == "b/0"


def test_concatenation_keeps_every_border():
    joined = sources.Concatenated(("ab", "", "cde"))
    assert len(joined) == 5 and [joined[i] for i in range(5)] == list("abcde")
    assert [sources.Subset("abcdef", 2, 5)[i] for i in range(3)] == list("cde")
    for source, index in ((joined, 5), (joined, -1), (sources.Subset("abcdef", 2, 5), 3)):
        with pytest.raises(IndexError):
            source[index]
