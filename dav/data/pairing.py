"""One image file and one map file → one Frame, with the checks that every such pair needs."""

from pathlib import Path

import numpy as np

from dav.data.formats import image_size
from dav.data.frames import DEPTH_M, Frame, Skipped, Target
from dav.errors import DavError


def depth_in_steps(steps, unit_m, *, valid=True):
    """Whole steps uint [H, W] of `unit_m` metres → Target in metres, stored exactly.

    Invalid are 0, 65535 (the end of the scale: saturated, or a marker) and where `valid` is false.
    """
    valid = valid & (steps > 0) & (steps < 65535)
    return Target(DEPTH_M, steps * np.float32(unit_m), valid, unit=unit_m)


def frame_of(name, image_path, map_path, target):
    """The Frame of an image file and its target, which was read from map_path.

    Skipped if no pixel is valid. Raises DavError, naming both files, if their sizes differ.
    """
    image = Path(image_path).read_bytes()
    check_size(image, image_path, target.valid, map_path)
    measured = target.valid if target.sky is None else target.valid & ~target.sky
    if not measured.any():
        return Skipped(name, f"{Path(map_path).name} has no valid pixel")
    return Frame(name, image, target)


def check_size(image, image_path, values, map_path):
    """Raises DavError unless a map [H, W] has the size of its image, given as bytes."""
    height, width = image_size(image)
    if values.shape != (height, width):
        raise DavError(
            f"{map_path} is {values.shape[1]}×{values.shape[0]}, its image {image_path} is "
            f"{width}×{height}: they do not belong together, or one was resized"
        )
