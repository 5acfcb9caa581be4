"""Label shards: pseudo-labels, one for one with image shards.

The label shards of a data set's split stand in LABELS/name/config/split/, each with its image
shard's file name, its record count and its order. manifest.jsonl has one line a finished shard; a
shard without a line does not exist. Each record is a msgpack map:

    id, codec
    size        [H, W]
    low, step   disparity = low + step · value, value in 0 … STEPS
    tolerance   how far a value may be off
    parts       the values, near_lossless.py
    crc32       of the map without it
"""

import os
import zlib
from pathlib import Path

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from dav.data import near_lossless
from dav.data.sources import Decoded
from dav.errors import DavError
from dav.files import append_line, checksum, read_lines

CODEC = "near-lossless 1"
LARGEST_ERROR = 1 / 1000  # of a map's range, at every pixel
# (tolerance + ½) / STEPS, a value's rounding included, stays just below LARGEST_ERROR. A tolerance
# of 0 is for ranges so small beside their values that float32 itself has few steps there.
STEPS, TOLERANCES = 7515, (7, 0)


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
    return msgpack.packb(label | {"crc32": zlib.crc32(msgpack.packb(label))})


def decode_label(record):
    """The inverse: id, disparity float32 [H, W] and an all-true valid mask.

    Raises DavError for damaged bytes, with the label's id where it can be read.
    """
    label = _unpack(record)
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
        raise DavError(f"label {name} is damaged; delete its shard and run --job=label again")
    if label["codec"] != CODEC:
        raise DavError(
            f"label {name} was written as {label['codec']!r}, this version of dav reads {CODEC!r}; "
            "delete the labels and run --job=label again"
        )
    return label


def write_shard(folder, name, records, origin):
    """Writes one label shard whole or not at all, then its manifest line.

    `origin` names the teacher and is kept in the line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{name}.tmp"
    writer = ArrayRecordWriter(str(temporary), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    if ArrayRecordReader(str(temporary)).num_records() != len(records):
        raise DavError(f"label shard {temporary} was not written whole: is the disk full?")
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, folder / name)
    line = {
        "shard": name,
        "records": len(records),
        "bytes": (folder / name).stat().st_size,
        "sha256": checksum(folder / name),
        "teacher": origin,
    }
    append_line(folder / "manifest.jsonl", line)


def finished_shards(folder, origin):
    """Manifest lines by shard, of the shards that are there and were made by teacher `origin`.

    The checksum is compared too: a label takes far longer to make than to read.
    """
    newest = {line["shard"]: line for line in read_lines(Path(folder) / "manifest.jsonl")}
    return {
        name: line
        for name, line in newest.items()
        if line["teacher"] == origin and checksum(Path(folder) / name) == line["sha256"]
    }


def open_labels(folder, shards):
    """The decoded labels of `shards` (file names), one after the other, by index."""
    from grain.sources import ArrayRecordDataSource

    return Decoded(
        ArrayRecordDataSource([str(Path(folder) / name) for name in shards]), decode_label
    )
