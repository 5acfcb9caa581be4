"""Image files, Pillow images and arrays → uint8 RGB.

Colour profiles are ignored: the numbers in the file are taken as sRGB, as in training.
"""

import os
import stat

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dav.errors import DavError

# The network sees the short side at its own size, so a strip's long side would exceed any memory.
MAX_ASPECT = 10
# Formats of photographs; others of Pillow's run external programs, or take noise for an image.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
WHITE = (255, 255, 255, 255)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(file):
    """An image file, by path or open for reading bytes → uint8 RGB [H, W, 3], writable.

    Turned as its EXIF orientation says; of an animation the first frame; see `to_rgb` for other
    than 8-bit RGB. Raises DavError, in one sentence with the name and the reason, for whatever
    cannot be read whole: a truncated image is an error, never one with a grey rest.
    """
    try:
        if hasattr(file, "read"):
            return _decode(file)
        with _open_regular(file) as opened:
            return _decode(opened)
    except Exception as error:  # Pillow raises nearly everything: SyntaxError, struct.error, ...
        name = getattr(file, "name", "an open file") if hasattr(file, "read") else file
        raise DavError(f"cannot read {shown(name)}: {reason(error)}") from None


def as_rgb(image):
    """What Python code may pass as an image → uint8 RGB [H, W, 3].

    A path or an open file, as `read_image`; a Pillow image, which is not turned: its map has its
    size; an array, uint8 RGB [H, W, 3] or grey [H, W]. Raises DavError for anything else.
    """
    if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
        return read_image(image)
    if isinstance(image, Image.Image):
        try:
            check_aspect(*image.size)
            return to_rgb(image)
        except Exception as error:
            raise DavError(f"cannot read the Pillow image: {reason(error)}") from None
    if not hasattr(image, "__array__"):
        raise DavError(
            f"an image of type {type(image).__name__} is not understood; pass a path, a Pillow "
            "image, or a uint8 RGB array [height, width, 3]"
        )
    array = np.asarray(image)
    shape = array.shape
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    if array.dtype != np.uint8 or not is_image or 0 in shape:
        raise DavError(
            f"an image array must be uint8 RGB [height, width, 3] or grey [height, width]; this "
            f"one is {array.dtype} {'×'.join(map(str, shape)) or 'without a shape'}"
        )
    check_aspect(*array.shape[1::-1])
    return np.repeat(array[..., None], 3, axis=-1) if array.ndim == 2 else array


def to_rgb(image):
    """A Pillow image of any mode → uint8 RGB [H, W, 3], writable.

    Transparent pixels lie on white. 16 bits a channel become 8 linearly. Floats are 0 to 1, or 0
    to 255 if any is above 1; 32-bit integers are 0 to 65535; beyond, the range is unknown and
    DavError is raised.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_grey(np.asarray(image))[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return np.array(image.convert("RGB"))


def shown(path):
    """A path as one printable line, whatever bytes it has."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else str(path)
    text = os.fsdecode(text)
    return text if text.isprintable() else repr(text)


def _open_regular(path):
    """Opens a file, but none that could make the reader wait for ever."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise DavError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise DavError("it is not a regular file")
    return open(path, "rb")


def _decode(file):
    if not file.read(1):
        raise DavError("it is empty")
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        check_aspect(*image.size)
        image.load()
        turn = TURNS.get(orientation(image))
        return to_rgb(image if turn is None else image.transpose(turn))


def check_aspect(width, height):
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DavError(f"it is a strip of {width}×{height} px; the limit is 1:{MAX_ASPECT}")


def orientation(image):
    """The EXIF orientation; damaged EXIF beside a whole picture counts as none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def _grey(values):
    """Grey of any type [H, W] → uint8 [H, W]; the ranges are those `to_rgb` states."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 255):  # false for NaN too
            raise DavError(f"its floats reach from {low:g} to {high:g}, not 0 to 1 or 0 to 255")
        scale = 255.0 if high <= 1 else 1.0
    else:
        if low < 0 or high > 65535:
            raise DavError(f"its integers reach from {low} to {high}, not 0 to 65535")
        scale = 255 / 65535
    return np.rint(values.astype(np.float64) * scale).astype(np.uint8)


def reason(error):
    """Why an image could not be read, in a few words."""
    if isinstance(error, DavError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image in a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more than {2 * Image.MAX_IMAGE_PIXELS // 1_000_000} million pixels"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "it is truncated"
    said = (str(error).splitlines() or [""])[0] or type(error).__name__
    return f"it is damaged ({said})"
