"""Pseudo-labels, one for one with images. Each record is a msgpack map:

    id, codec
    size        [H, W]
    low, step   disparity = low + step · value, value in 0 … STEPS
    tolerance   how far a value may be off
    parts       the values, near_lossless.py
    crc32       of the map without it

or, for an image that could not be labelled, id, codec, reason and crc32.
"""

import zlib

import cv2
import msgpack
import numpy as np

from dav.data import near_lossless
from dav.errors import DavError

CODEC, NO_LABEL = "near-lossless 1", "none"
LARGEST_ERROR = 1 / 1000  # of a map's range, at every pixel
# (tolerance + ½) / STEPS, a value's rounding included, stays just below LARGEST_ERROR. A tolerance
# of 0 is for ranges so small beside their values that float32 itself has few steps there.
STEPS, TOLERANCES = 7515, (7, 0)
SPARSE = 4  # every so many rows and columns are enough for a median


def encode_label(name, disparity):
    """Disparity float32 [H, W] → bytes. Decoded, no pixel is off by more than LARGEST_ERROR of the
    map's range or outside it, and none that is 0 at the low end of the range has another value.

    Raises DavError, with `name`, for a map that is not finite.
    """
    low, high = float(disparity.min()), float(disparity.max())
    if not np.isfinite([low, high]).all():
        raise DavError(f"the teacher's map for {name} is not finite; its training has failed")
    step = (high - low) / STEPS
    while low + step * STEPS > high:  # by rounding, where −low is far larger than high
        step = np.nextafter(step, 0)
    values = np.zeros(disparity.shape, np.int16)
    if step > 0:
        values = np.rint((disparity.astype(np.float64) - low) / step).astype(np.int16)
    for tolerance in TOLERANCES:
        record = _pack(name, values, low, float(step), tolerance)
        error = np.abs(decode_label(record)["disparity"].astype(np.float64) - disparity).max()
        if error <= LARGEST_ERROR * (high - low):
            return record
    raise AssertionError(f"label {name} is off by {error}, its range is {low} … {high}")


def _pack(name, values, low, step, tolerance):
    label = {"id": name, "codec": CODEC, "size": values.shape, "low": low, "step": step}
    label["tolerance"] = tolerance
    label["parts"] = near_lossless.compress(values, STEPS, tolerance)
    return _seal(label)


def encode_missing(name, reason):
    """The record of an image without a label → bytes."""
    return _seal({"id": name, "codec": NO_LABEL, "reason": reason})


def _seal(label):
    return msgpack.packb(label | {"crc32": zlib.crc32(msgpack.packb(label))})


def decode_label(record):
    """The inverse: id, disparity float32 [H, W] and an all-true valid mask; or id and reason alone,
    of an image without a label.

    Raises DavError for damaged bytes, with the label's id where it can be read.
    """
    label = _unpack(record)
    if label["codec"] == NO_LABEL:
        return {"id": label["id"], "reason": label["reason"]}
    values = near_lossless.decompress(label["parts"], label["size"], STEPS, label["tolerance"])
    disparity = np.multiply(values, label["step"], dtype=np.float64)
    disparity += label["low"]
    disparity = disparity.astype(np.float32)
    return {"id": label["id"], "disparity": disparity, "valid": np.ones(values.shape, bool)}


def _unpack(record):
    label = {}
    try:
        label = msgpack.unpackb(record)
        crc32 = label.pop("crc32")
        whole = crc32 == zlib.crc32(msgpack.packb(label))
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    name = repr(label["id"]) if isinstance(label, dict) and "id" in label else "of unknown id"
    if not whole:
        raise DavError(
            f"label {name} is damaged; --job=label with --config.label_verify=True finds damaged "
            "shards and makes them again"
        )
    if label["codec"] not in (CODEC, NO_LABEL):
        raise DavError(
            f"label {name} was written as {label['codec']!r}, this version of dav reads {CODEC!r}; "
            "delete the labels and run --job=label again"
        )
    return label


def describe(disparity):
    """What a map float32 [H, W] is like: low, median and high; zeros, the share of pixels at 0;
    roughness, the mean Laplacian as a share of the range, 0 for a constant map.

    The median is that of every SPARSE-th row and column.
    """
    low, high = float(disparity.min()), float(disparity.max())
    laplacian = np.abs(cv2.Laplacian(disparity, cv2.CV_32F)).mean(dtype=np.float64)
    return {
        "low": low,
        "median": float(np.median(disparity[::SPARSE, ::SPARSE])),
        "high": high,
        "zeros": 1 - int(np.count_nonzero(disparity)) / disparity.size,
        "roughness": float(laplacian) / (high - low) if high > low else 0.0,
    }
