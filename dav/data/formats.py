"""Readers of the files in which data sets ship images and maps: one file → one array.

Each gives what the file holds, as it stands there: scales, invalid values and orientation are the
builders' matter. Whatever cannot be read whole raises DavError with the file's name and what is
wrong with it; sizes that a header claims are held against the file's before anything is allocated.
"""

import io
import math
import re
import zipfile
import zlib

import numpy as np
from PIL import Image

from dav.data.reading import MAX_RATIO, check_file, kind_of, needs, read_bytes, reading
from dav.errors import DavError

IMAGES = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 1 << 28  # a picture beyond this is a damaged header
DPT_TAG = 202021.25


def read_steps(path):
    """A grey image of 1 to 16 bits, PNG, PGM or other → uint8 or uint16 [H, W], as stored."""
    with reading(path):
        content = read_bytes(path)
        if content.startswith(b"P5"):
            return _parse_pgm(content)
        image = _decode_image(content)
        values = np.asarray(image)
        if values.ndim != 2 or image.mode == "P" or values.dtype.kind not in "bu":
            raise DavError(f"it is not a grey image of whole numbers (its mode is {image.mode})")
        values = values.astype(np.uint16 if values.dtype.itemsize > 1 else np.uint8)
        return values // _stretch(content) if image.format == "PNG" else values


def read_rgb(path):
    """A colour or grey photograph of 8 bits a channel → uint8 [H, W, 3] RGB, writable.

    EXIF orientation is not applied; transparency is dropped.
    """
    with reading(path):
        image = _decode_image(read_bytes(path))
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise DavError(f"it is a map, not a photograph (its mode is {image.mode})")
        return np.array(image.convert("RGB"))


def image_size(file):
    """(height, width) of an image file, by path or as bytes, from its header alone.

    As stored: EXIF orientation is not applied.
    """
    is_bytes = isinstance(file, bytes)
    with reading(f"an image of {len(file)} bytes" if is_bytes else file):
        if not is_bytes:
            check_file(file)
        with Image.open(io.BytesIO(file) if is_bytes else file, formats=IMAGES) as image:
            return image.height, image.width


def read_dpt(path):
    """Sintel's depth (sintel.is.tue.mpg.de, sintel_io.py) → float32 [H, W]."""
    with reading(path):
        content = read_bytes(path)
        if len(content) < 12 or np.frombuffer(content, "<f4", 1)[0] != np.float32(DPT_TAG):
            raise DavError(f"it has no .dpt tag; it is {kind_of(content)}")
        width, height = (int(size) for size in np.frombuffer(content, "<i4", 2, 4))
        return _shape_floats(content[12:], (height, width), "<f4")


def read_pfm(path):
    """A portable float map → float32 [H, W] or [H, W, 3], top row first.

    The sign of the scale gives the byte order; its size is not applied.
    """
    with reading(path):
        content = read_bytes(path)
        header = re.match(
            rb"P([fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,40})(?:\r\n|\s)", content
        )
        if not header:
            raise DavError(f"it has no PFM header; it is {kind_of(content)}")
        width, height, scale = int(header[2]), int(header[3]), float(header[4])
        if not math.isfinite(scale) or scale == 0:
            raise DavError(f"its scale, {scale}, tells no byte order")
        shape = (height, width, 3) if header[1] == b"F" else (height, width)
        values = _shape_floats(content[header.end() :], shape, "<f4" if scale < 0 else ">f4")
        return np.ascontiguousarray(values[::-1])


def read_exr(path, channel=None):
    """An OpenEXR image's named channel, or its only one → float32 [H, W]."""
    with reading(path):
        try:
            import OpenEXR
        except ImportError:
            raise needs("OpenEXR") from None
        content = read_bytes(path)
        if not content.startswith(b"\x76\x2f\x31\x01"):
            raise DavError(f"it has no OpenEXR header; it is {kind_of(content)}")
        with OpenEXR.File(str(path), header_only=True) as file:
            low, high = (corner.astype(np.int64) for corner in file.header()["dataWindow"])
            _check_pixels(*(int(size) for size in high - low + 1))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            if not file.parts:
                raise DavError("its pixels cannot be decoded: it is truncated or damaged")
            channels = file.channels()
            if channel is None and len(channels) == 1:
                channel = next(iter(channels))
            if channel not in channels:
                known = f"its channels are {', '.join(channels)}"
                raise DavError(known + (f"; asked for {channel}" if channel else "; name one"))
            pixels = channels[channel].pixels
        if pixels.ndim != 2:
            raise DavError(f"its channel {channel} is {pixels.ndim}-dimensional")
        return pixels.astype(np.float32)


def read_float32(path, shape):
    """A file of nothing but little-endian float32 → float32 of `shape`."""
    with reading(path):
        return _shape_floats(read_bytes(path), tuple(shape), "<f4")


def read_npy(path, ndim=2):
    """A .npy array of numbers with `ndim` axes; a last axis of 1 too many is dropped."""
    with reading(path):
        values = _parse_npy(read_bytes(path))
        if values.ndim == ndim + 1 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim != ndim:
            raise DavError(f"its array is {values.shape}, not of {ndim} axes")
        return values


def read_npz(path, *names):
    """The named arrays of an .npz archive, or all: dict of arrays of numbers."""
    with reading(path):
        content = read_bytes(path)
        if not content.startswith(b"PK"):
            raise DavError(f"it is no .npz archive; it is {kind_of(content)}")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            for name in names:
                if name not in held:
                    raise DavError(f"it has no array {name!r}; it has {', '.join(held)}")
            return {name: _parse_member(archive, name, len(content)) for name in names or held}


def _parse_member(archive, name, archive_bytes):
    member = name if name in archive.namelist() else name + ".npy"
    size = archive.getinfo(member).file_size
    if size > MAX_RATIO * archive_bytes:
        raise DavError(f"its array {name!r} claims {size} bytes")
    return _parse_npy(archive.read(member))


def _parse_npy(content):
    """A .npy file's bytes → a writable array in this machine's byte order; never pickles."""
    if not content.startswith(b"\x93NUMPY"):
        raise DavError(f"it has no .npy header; it is {kind_of(content)}")
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    parse = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in parse:
        raise DavError(f"its .npy version {version} is not known")
    shape, fortran, dtype = parse[version](file)
    if dtype.kind not in "biuf":
        raise DavError(f"its values are {dtype}, not numbers")
    _check_bytes(len(content) - file.tell(), math.prod(shape) * dtype.itemsize, shape, dtype)
    values = np.frombuffer(content, dtype, offset=file.tell())
    values = values.reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="))


def _shape_floats(content, shape, dtype):
    if any(size <= 0 for size in shape):
        raise DavError(f"its header claims a size of {shape}")
    _check_bytes(len(content), math.prod(shape) * 4, shape, "float32", content)
    return np.frombuffer(content, dtype).reshape(shape).astype(np.float32)


def _check_bytes(found, expected, shape, dtype, content=b""):
    if found != expected:
        kind = kind_of(content)
        raise DavError(
            f"{' × '.join(map(str, shape))} {dtype} take {expected} bytes, it holds {found}"
            + ("" if kind.startswith("of") else f"; it is {kind}")
        )


def _check_pixels(width, height):
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise DavError(f"its header claims {width} × {height} pixels")


def _parse_pgm(content):
    """Binary PGM (netpbm.sourceforge.net/doc/pgm.html): 16-bit samples are big-endian."""
    gap = rb"(?:\s|#[^\n]*\n)+"
    header = re.match(rb"P5%b(\d{1,9})%b(\d{1,9})%b(\d{1,5})\s" % (gap, gap, gap), content)
    if not header:
        raise DavError("its PGM header is damaged")
    width, height, largest = (int(part) for part in header.groups())
    _check_pixels(width, height)
    dtype = np.dtype(np.uint8 if largest < 256 else ">u2")
    _check_bytes(
        len(content) - header.end(), height * width * dtype.itemsize, (height, width), dtype.name
    )
    values = np.frombuffer(content, dtype, offset=header.end()).reshape(height, width)
    return values.astype(dtype.newbyteorder("="))


def _decode_image(content):
    """An image file's bytes → a decoded Pillow image; Pillow raises for a truncated one."""
    if content.startswith(b"\x89PNG"):
        _check_png(content)
    image = Image.open(io.BytesIO(content), formats=IMAGES)
    _check_pixels(*image.size)
    image.load()
    return image


def _check_png(content):
    """Raises DavError unless the critical chunks are whole, up to the last: decoders skip that."""
    place, kind = 8, b""
    while kind != b"IEND":
        size = int.from_bytes(content[place : place + 4], "big")
        body, end = content[place + 4 : place + 8 + size], place + 12 + size
        kind, place = body[:4], end
        if end > len(content):
            raise DavError("it is truncated")
        if kind[:1].isupper() and zlib.crc32(body) != int.from_bytes(content[end - 4 : end], "big"):
            raise DavError(f"it is damaged (checksum of its {kind.decode('latin-1')!r} chunk)")


def _stretch(content):
    """What decoders multiply the values of a PNG of 1, 2 or 4 bits with: 1, 85 or 17."""
    bits = content[24]
    return 255 // (2**bits - 1) if bits in (2, 4) else 1
