"""Writes the files of miniature raw trees, and takes builders through them."""

import pickle

import cv2
import numpy as np

from dav.data.examples import decode_example, decode_metric_example, encode_example
from dav.data.frames import Frame


def write_image(path, size=(6, 8), seed=0):
    """A colour image of noise, by suffix; returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path.read_bytes()


def write_steps(path, steps):
    """A grey PNG or PGM of these whole numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(steps))
    return path


def ramp(size=(6, 8), first=1000, step=10, dtype=np.uint16):
    """A map whose every pixel differs, so that a flip or a transposition shows."""
    return (first + step * np.arange(size[0] * size[1]).reshape(size)).astype(dtype)


def build(builder, raw):
    """{split: what the builder yields}; checks what every builder promises."""
    splits = builder.plan(raw)
    assert splits == builder.plan(raw)
    read, items = pickle.loads(pickle.dumps((builder.read, splits)))
    found = {
        split: [entry for item in items for entry in read(raw, item)]
        for split, items in items.items()
    }
    ids = [entry.id for entries in found.values() for entry in entries]
    assert len(set(ids)) == len(ids)
    for entries in found.values():
        for entry in entries:
            if isinstance(entry, Frame) and entry.target is not None:
                check_target(entry.target)
    return found


def check_target(target):
    """What frames.Target promises."""
    measured = target.valid if target.sky is None else target.valid & ~target.sky
    assert target.values.dtype == np.float32 and target.valid.dtype == np.bool_
    assert np.isfinite(target.values[measured]).all() and (target.values[measured] > 0).all()


def stored(frame, decode=decode_metric_example):
    """The frame as it comes out of a record."""
    record = encode_example(frame, frame.image)
    texts = {name: record[name].encode() for name in ("id", "quantity")}
    return decode(record | texts)


def stored_disparity(frame):
    return stored(frame, decode_example)
