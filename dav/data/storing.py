"""Images as prepared data sets store them: whole, upright, and no larger than training needs."""

import io
import warnings

import cv2
import numpy as np
from PIL import Image

from dav import images
from dav.data import decoding
from dav.data.transforms import resize_image
from dav.errors import DavError

KEPT = ("JPEG", "PNG", "WEBP")  # formats that are stored as they came
SMALL = ("JPEG", "WEBP")  # those of them that may stay where space counts


def store_image(image, *, target_size=None, keep, short_side_px, quality):
    """An image file's bytes, or uint8 [H, W, 3] RGB → (file bytes, (height, width)).

    Every image is decoded once, strictly, so that what is stored can be read. Orientation is
    applied, unless `target_size`, the (height, width) of the image's target, says that the target
    has none. With `keep` the bytes stay as they are if they can; else they become JPEG of
    `quality` where they were not compressed, and, without a target, at most `short_side_px` high
    or wide (0: any). Raises DavError, in a few words, for an image that cannot be read whole.
    """
    limit = 0 if keep or target_size else short_side_px
    if isinstance(image, np.ndarray):
        return _encode(_shrunk(image, limit), keep, quality)
    try:
        with warnings.catch_warnings():  # of damaged tags, of many pixels: the image counts
            warnings.simplefilter("ignore")
            return _store_file(image, target_size, keep, limit, quality)
    except Exception as error:  # Pillow raises nearly everything
        raise DavError(images.reason(error)) from None


def _store_file(content, target_size, keep, limit, quality):
    if not content:
        raise DavError("it is empty")
    with Image.open(io.BytesIO(content), formats=images.FORMATS) as opened:
        images.check_aspect(*opened.size)
        kind, size = opened.format, opened.size[::-1]
        tag = images.orientation(opened)
        turn = _turn(tag, size, target_size)
        shrinks = 0 < limit < min(size)
        may_stay = kind in (KEPT if keep else SMALL) and opened.mode in ("RGB", "L")
        may_stay &= not shrinks and tag not in images.TURNS
        if kind == "WEBP" and may_stay:
            _check_webp(content, size)
            return content, size
        if shrinks:  # the decoder may then leave out what would be averaged away
            scale = limit / min(size)
            opened.draft("RGB", tuple(int(side * scale) + 1 for side in opened.size))
        opened.load()
        if kind == "PNG":
            _check_png(content)
        if may_stay:
            return content, size
        upright = opened.transpose(images.TURNS[turn]) if turn in images.TURNS else opened
        pixels = images.to_rgb(upright)
    return _encode(_shrunk(pixels, limit), keep, quality)


def _check_png(content):
    """Pillow reads past damage that the checksums inside a PNG tell, and other readers refuse."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        opened.verify()


def _check_webp(content, size):
    """Reads it as training will, which is also faster than with Pillow."""
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), decoding.REDUCED[1])
    if decoded is None or decoded.shape[:2] != size:
        raise DavError("it is truncated or damaged")


def _turn(orientation, size, target_size):
    """The orientation to apply: 1 is none."""
    if orientation not in images.TURNS:
        return 1
    if target_size is None:
        return orientation
    upright = size[::-1] if orientation >= 5 else size
    if upright == size:
        raise DavError(
            f"it has the EXIF orientation {orientation}, and nothing tells whether its target has "
            "been turned too; turn the image and remove the tag"
        )
    return orientation if tuple(target_size) == upright else 1


def _shrunk(pixels, limit):
    """Short side at most `limit` (0: any), aspect kept."""
    height, width = pixels.shape[:2]
    if not 0 < limit < min(height, width):
        return pixels
    scale = limit / min(height, width)
    return resize_image(pixels, (round(height * scale), round(width * scale)))


def _encode(pixels, keep, quality):
    bgr = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    if keep:
        done, encoded = cv2.imencode(".png", bgr)
    else:
        done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DavError("it cannot be encoded")
    return encoded.tobytes(), pixels.shape[:2]
