"""The form in which every prepared data set stores its examples, and its decoding.

A record holds the encoded image, the encoded target (targets.py) and what it measures (frames.py);
decoding gives the examples that all of dav works with:

    id         str
    image      uint8   [H, W, 3] RGB
    disparity  float32 [H, W]     larger = nearer, any positive scale; 0 where invalid and in skies
    valid      bool    [H, W]     with the sky

or, for evaluation in metres, in place of disparity

    depth_m    float32 [H, W]     planar depth in metres; 0 where invalid and in skies
    valid      bool    [H, W]     without the sky

or, for sets of point pairs,

    pairs      int32   [N, 2, 2]  pair, (closer, farther), (row, column)

Unlabelled sets have an empty target and examples of id and image alone.
"""

import msgpack
import numpy as np

from dav.data import targets
from dav.data.decoding import decode_image
from dav.data.frames import DEPTH_M, PAIRS, Pairs
from dav.errors import DavError


def features():
    """The TFDS features of a record."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Text(),  # an encoded image file
            "target": tfds.features.Text(),  # 16-bit PNG; msgpack for pairs; empty: unlabelled
            "quantity": tfds.features.Text(),  # what the target's values are: frames.py
            "unit": np.float32,  # values of its codes: targets.py
            "growth": np.float32,
        }
    )


def encode_example(frame, image):
    """A builder's Frame with its image's file bytes → a record's fields."""
    record = {"id": frame.id, "image": image, "target": b"", "quantity": ""}
    record |= {"unit": 0.0, "growth": 0.0}
    if isinstance(frame.target, Pairs):
        points = np.asarray(frame.target.points, np.int32).reshape(-1, 2, 2)
        return record | {"target": msgpack.packb(points.tolist()), "quantity": PAIRS}
    if frame.target is not None:
        png, unit, growth = targets.encode_target(frame.target, frame.id)
        record |= {"target": png, "quantity": frame.target.quantity, "unit": unit}
        record["growth"] = growth
    return record


def decode_example(record):
    """A record → the example, as described above."""
    example = decode_target(record)
    example["image"] = decode_image(example["image"], example["id"])
    if "disparity" in example:
        check_size(example["image"], example["disparity"], example["id"])
    return example


def decode_target(record):
    """A record → the example, but its image still encoded: how much of it is worth decoding is
    known where it is cropped (transforms.random_view)."""
    name, quantity = record["id"].decode(), record["quantity"].decode()
    example = {"id": name, "image": record["image"]}
    if quantity == PAIRS:
        points = msgpack.unpackb(record["target"])
        return example | {"pairs": np.asarray(points, np.int32).reshape(-1, 2, 2)}
    if quantity:
        scale = float(record["unit"]), float(record["growth"])
        disparity, valid = targets.decode_disparity(record["target"], *scale, quantity, name)
        example |= {"disparity": disparity, "valid": valid}
    return example


def decode_metric_example(record):
    """A record → the example with depth_m. Raises DavError for targets that are not in metres."""
    name, quantity = record["id"].decode(), record["quantity"].decode()
    if quantity != DEPTH_M:
        raise DavError(
            f"example {name} has {quantity or 'no target'}, not depth in metres; evaluation in "
            "metres needs a set of measured depth"
        )
    image = decode_image(record["image"], name)
    scale = float(record["unit"]), float(record["growth"])
    depth_m, valid = targets.decode_depth(record["target"], *scale, name)
    check_size(image, depth_m, name)
    return {"id": name, "image": image, "depth_m": depth_m, "valid": valid}


def check_size(image, target, name):
    """Raises DavError if a target is not of its image's size."""
    if target.shape != image.shape[:2]:
        raise DavError(
            f"example {name}: image {image.shape[:2]} and target {target.shape} differ in size; "
            "prepare this data set again"
        )
