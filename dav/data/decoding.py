"""Image files → arrays, by OpenCV: its libjpeg-turbo for JPEG, its own readers for PNG and WebP.

Training wants far fewer pixels than a photograph has. A JPEG can be decoded at 1/2, 1/4 or 1/8 of
its size straight from its frequencies, which saves up to half of the decoding and nearly all of the
resizing. Which of them is a function of the stored size and the size that is needed, of nothing
else: every machine decodes the same pixels. benchmarks/data.py measures decoders, methods of
resizing and what is lost.
"""

import cv2
import numpy as np

from dav.errors import DavError

# Stored images are upright, whatever their tags say.
UPRIGHT_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# OpenCV has no names for reduced RGB; its reduced grey and RGB together mean just that.
REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | UPRIGHT_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | UPRIGHT_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | UPRIGHT_RGB,
    1: UPRIGHT_RGB,
}
# Start-of-frame markers: all of C0 … CF but DHT, JPG and DAC. Markers without a length come alone.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})


def decode_image(encoded, name):
    """A stored image file's bytes → uint8 [H, W, 3] RGB.

    Raises DavError, with the example's `name`, for bytes that are no image.
    """
    return _decode(encoded, name, 1)


def decode_reduced(encoded, name, needed):
    """An image file's bytes → (image uint8 [h, w, 3] RGB, its full size (H, W) in px).

    `needed` maps (H, W) to the (height, width) that is asked for. A JPEG is decoded at the
    smallest of 1, 1/2, 1/4 and 1/8 of its size that is not smaller, both sides rounded up; other
    images in full. Raises DavError as decode_image does.
    """
    size = jpeg_size(encoded)
    if size is None:
        image = _decode(encoded, name, 1)
        return image, image.shape[:2]
    return _decode(encoded, name, reduction(size, needed(*size))), size


def reduction(size, needed):
    """The largest of 8, 4, 2 and 1 by which an image of `size` may be reduced and still covers
    the size that is needed."""
    for factor in REDUCED:
        reduced = (-(-side // factor) for side in size)
        if all(side >= wanted for side, wanted in zip(reduced, needed, strict=True)):
            return factor
    return 1


def jpeg_size(encoded):
    """(height, width) as a JPEG's header states it; None for other files."""
    position = 2
    if encoded[:2] != b"\xff\xd8":
        return None
    while position + 9 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker in FRAMES:
            height = int.from_bytes(encoded[position + 5 : position + 7], "big")
            width = int.from_bytes(encoded[position + 7 : position + 9], "big")
            return (height, width) if height and width else None
        if marker == 0xFF:  # padding
            position += 1
        elif marker in ALONE:
            position += 2
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return None


def _decode(encoded, name, factor):
    decoded = None
    if encoded:
        try:
            decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), REDUCED[factor])
        except cv2.error:
            decoded = None
    if decoded is None:
        raise DavError(
            f"example {name} cannot be decoded: its data set is damaged; delete it and prepare it "
            "again (--job=prepare)"
        )
    return decoded
