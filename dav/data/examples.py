"""The form in which every prepared data set stores its examples, and its decoding.

A record holds the encoded image, the encoded target and what the target's numbers mean; decoding
gives the example that all of dav works with:

    id         str
    image      uint8   [H, W, 3] RGB
    disparity  float32 [H, W]     larger = nearer, any positive scale; 0 where invalid
    valid      bool    [H, W]

Unlabelled sets have an empty target and examples without disparity and valid.
"""

import cv2
import numpy as np

from dav.errors import DavError


def features():
    """The TFDS features of a record."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Text(),  # an encoded image file
            "target": tfds.features.Text(),  # 16-bit PNG, 0 = invalid; empty: unlabelled
            "unit_m": np.float32,  # metres of depth for one step of the target
        }
    )


def decode_example(record):
    """A record → the example described above."""
    name = record["id"].decode()
    example = {"id": name, "image": decode_image(record["image"], name)}
    if record["target"]:
        depth_m = decode_depth(record, name)
        if depth_m.shape != example["image"].shape[:2]:
            raise DavError(
                f"example {name}: image {example['image'].shape[:2]} and target {depth_m.shape} "
                "differ in size; prepare this data set again"
            )
        valid = depth_m > 0
        disparity = np.where(valid, 1 / np.where(valid, depth_m, 1), 0).astype(np.float32)
        example |= {"disparity": disparity, "valid": valid}
    return example


def decode_image(encoded, name):
    """An image file's bytes → uint8 [H, W, 3] RGB."""
    return _decode(encoded, cv2.IMREAD_COLOR_RGB, name)


def decode_depth(record, name):
    """A record's target → depth in metres, float32 [H, W], 0 where invalid."""
    steps = _decode(record["target"], cv2.IMREAD_UNCHANGED, name)
    if steps.dtype != np.uint16 or steps.ndim != 2:
        raise DavError(f"example {name}: its target is not a 16-bit grey PNG; prepare it again")
    return steps.astype(np.float32) * np.float32(record["unit_m"])


def _decode(encoded, flags, name):
    decoded = None
    if encoded:
        try:
            decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        except cv2.error:
            decoded = None
    if decoded is None:
        raise DavError(
            f"example {name} cannot be decoded: its data set is damaged; delete it and prepare it "
            "again (--job=prepare)"
        )
    return decoded
