"""Miniature raw trees: files in published formats, written byte by byte, and what is asked of
every builder."""

import pickle

import cv2
import numpy as np

from dav.data.examples import decode_example, decode_metric_example, encode_example
from dav.data.frames import Frame, Skipped
from dav.errors import DavError


def write_image(path, height=3, width=4, value=90):
    """An image file of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[0, 0] = 255
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def write_steps(path, steps, dtype=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.asarray(steps, dtype))[1].tobytes())


def write_pfm(path, rows, big_endian=False):
    """rows: the picture as it is seen, top row first; the file has them from the bottom up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(rows)
    header = f"Pf\n{rows.shape[1]} {rows.shape[0]}\n{1.0 if big_endian else -1.0}\n"
    values = rows[::-1].astype(">f4" if big_endian else "<f4")
    path.write_bytes(header.encode() + values.tobytes())


def write_exr(path, values, channel="R"):
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {channel: np.asarray(values, np.float32)}).write(str(path))


def write_hdf5(path, values, name="depth"):
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = np.asarray(values)


def write_npy(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.asarray(values))


def everything(builder, raw):
    """{split: what its items yield}, after asking for what holds for every builder."""
    splits = builder.plan(raw)
    assert splits == builder.plan(raw)
    assert pickle.loads(pickle.dumps((builder, splits)))[1] == splits
    yielded = {
        split: [each for item in items for each in builder.read(raw, item)]
        for split, items in splits.items()
    }
    ids = [each.id for parts in yielded.values() for each in parts]
    assert len(ids) == len(set(ids))
    assert not any("\\" in each or each.startswith(("/", ".")) for each in ids)
    return yielded


def trained_on(frame):
    """The example that training sees of a frame: through the stored record and back."""
    return decode_example(_record(frame))


def measured(frame):
    """The metric example of a frame."""
    return decode_metric_example(_record(frame))


def _record(frame):
    record = encode_example(frame, frame.image)
    return {k: v.encode() if isinstance(v, str) else v for k, v in record.items()}


def survives(builder, raw, path, attempts=60):
    """Damages `path` again and again: items are read, left out, or one DavError is raised."""
    content, random = path.read_bytes(), np.random.default_rng(len(str(builder.name)))
    items = [item for items in builder.plan(raw).values() for item in items]
    outcomes = set()
    for _ in range(attempts):
        damaged = bytearray(content)
        for index in random.integers(0, len(content), random.integers(1, 6)):
            damaged[index] = random.integers(256)
        path.write_bytes(
            damaged[: random.integers(len(content) + 1)] if random.random() < 0.4 else damaged
        )
        try:
            for item in items:
                yielded = list(builder.read(raw, item))
                assert all(isinstance(each, Frame | Skipped) for each in yielded)
            outcomes.add("read")
        except DavError as error:
            assert str(raw) in str(error) or path.name in str(error)
            outcomes.add("refused")
    path.write_bytes(content)
    assert "refused" in outcomes
