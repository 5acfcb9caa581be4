"""One image file and one map file → one Frame, with the checks that every such pair needs."""

from pathlib import Path

import numpy as np
from PIL import Image

from dav.data.formats import IMAGES, image_size, read_steps
from dav.data.frames import DEPTH_M, Frame, Skipped, Target
from dav.data.reading import read_bytes, reading
from dav.errors import DavError

ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange rows and columns


def read_depth_steps(path):
    """A depth map of whole steps → uint16 [H, W]. Raises DavError for one of 8 bits: that is what
    a tool left of 16, and 255 steps of a millimetre would pass for depth."""
    steps = read_steps(path)
    if steps.dtype != np.uint16:
        raise DavError(
            f"{path} has 8 bits, not the 16 of depth: a tool has changed it; restore the original"
        )
    return steps


def depth_in_steps(steps, unit_m, *, valid=True):
    """Whole steps uint [H, W] of `unit_m` metres → Target in metres, stored exactly.

    Invalid are 0, 65535 (the end of the scale: saturated, or a marker) and where `valid` is false.
    """
    valid = valid & (steps > 0) & (steps < 65535)
    return Target(DEPTH_M, steps * np.float32(unit_m), valid, unit=unit_m)


def frame_of(name, image_path, map_path, target):
    """The Frame of an image file and its target, which was read from map_path.

    Skipped if no pixel was measured. Raises DavError, naming both files, if their sizes differ.
    """
    check_size(map_path, target.valid.shape, image_path)
    measured = target.valid if target.sky is None else target.valid & ~target.sky
    if not measured.any():
        return Skipped(name, f"{Path(map_path).name} has no valid pixel")
    with reading(image_path):
        return Frame(name, read_bytes(image_path), target)


def check_size(map_path, shape, image_path):
    """Raises DavError unless a map of this shape has its image's size, as stored or upright."""
    height, width = image_size(image_path)
    with reading(image_path), Image.open(image_path, formats=IMAGES) as image:
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    if shape == (height, width) or (turned and shape == (width, height)):
        return
    raise DavError(
        f"{map_path} is {shape[1]}×{shape[0]}, its image {image_path} is {width}×{height}: they "
        "do not belong together, or one was resized"
    )
