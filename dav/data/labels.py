"""Label shards: pseudo-labels, one for one with image shards.

The label shards of a data set's split stand in LABELS/name/config/split/, each with its image
shard's file name, its record count and its order. manifest.jsonl has one line a finished shard; a
shard without a line does not exist. Each record is a msgpack map: id, low and step (disparity =
low + step · pixel), and the map as 16-bit PNG.
"""

import os
from pathlib import Path

import cv2
import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from dav.data.sources import Decoded
from dav.errors import DavError
from dav.files import append_line, checksum, read_lines

STEPS = 65535


def encode_label(name, disparity):
    """Disparity float32 [H, W] → bytes; the error is at most half a step of 65535 to the range."""
    low, high = float(disparity.min()), float(disparity.max())
    if not np.isfinite([low, high]).all():
        raise DavError(f"the teacher's map for {name} is not finite; its training has failed")
    step = (high - low) / STEPS
    pixels = (
        np.round((disparity.astype(np.float64) - low) / step)
        if step > 0
        else np.zeros_like(disparity)
    )
    png = cv2.imencode(".png", pixels.astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 6])[1]
    return msgpack.packb({"id": name, "low": low, "step": step, "png": png.tobytes()})


def decode_label(record):
    """The inverse: id, disparity float32 [H, W] and an all-true valid mask."""
    label = msgpack.unpackb(record)
    pixels = cv2.imdecode(np.frombuffer(label["png"], np.uint8), cv2.IMREAD_UNCHANGED)
    disparity = (label["low"] + label["step"] * pixels.astype(np.float64)).astype(np.float32)
    return {"id": label["id"], "disparity": disparity, "valid": np.ones(pixels.shape, bool)}


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
