"""One shard of a data set: the unit of work of preparing.

A shard is made from its own work items alone and comes out the same wherever and whenever it is
made. It is written under a temporary name and renamed; its part file, SPLIT-00003.json in parts/,
follows, and only with it the shard counts as done.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dav.data import examples, storing
from dav.data.frames import Builder, Skipped, Target
from dav.errors import DavError
from dav.files import checksum, read_json, write_json, write_whole

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Options:
    """What a user may choose about how a data set is stored."""

    short_side_px: int = 518  # unlabelled images are stored no larger; 0: as they came
    quality: int = 95  # of JPEGs that dav writes
    sky: str = ""  # folder of sky masks, ID.png of each example
    skip_broken: bool = False  # list broken labelled examples in the report instead of stopping


@dataclass(frozen=True)
class Shard:
    """One shard's work."""

    builder: Builder
    raw: Path | None
    folder: Path
    split: str
    index: int
    count: int  # shards of the split
    items: tuple
    options: Options

    @property
    def path(self):
        """Where the shard stands, under the name that TFDS looks for."""
        name = self.builder.name.replace("/", "_")
        stem = f"{name}-{self.split}.array_record"
        return self.folder / f"{stem}-{self.index:05d}-of-{self.count:05d}"

    @property
    def part(self):
        """Where its counts, its checksum and what was skipped stand."""
        return self.folder / "parts" / f"{self.split}-{self.index:05d}.json"


def is_done(shard):
    """Whether a shard is there, whole: its part file is written last."""
    part = read_part(shard.part)
    return bool(part) and shard.path.exists() and part["bytes"] == shard.path.stat().st_size


def read_part(path):
    """A part file's content; None if it, or the digests beside it, are missing or damaged."""
    try:
        part = read_json(path)
        whole = part.pop("check") == _check(part)
        whole &= part["digests_sha256"] == checksum(path.with_suffix(".digests"))
    except (DavError, OSError, KeyError, TypeError, AttributeError):
        return None
    return part if whole else None


def _write_part(shard, part):
    part |= {"file": shard.path.name} | describe(shard.path)
    part["digests_sha256"] = checksum(shard.part.with_suffix(".digests"))
    write_json(shard.part, part | {"check": _check(part)})


def _check(part):
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def build(shard, count=lambda items, images: None):
    """Writes one shard and its part file; calls count(items, images) for every example and every
    item done with."""
    skipped, digests, targets = [], [], 0

    def records():
        nonlocal targets
        serialize = serializer()
        for frame in _frames(shard, count):
            record = frame if isinstance(frame, Skipped) else _record(shard, frame)
            if isinstance(record, Skipped):
                skipped.append({"id": _utf8(record.id), "reason": _utf8(record.reason)})
            else:
                digests.append(hashlib.blake2b(record["image"], digest_size=DIGEST_BYTES).digest())
                targets += bool(record["target"])
                yield serialize(record)
            count(0, 1)

    shard.part.unlink(missing_ok=True)  # it may tell of another form of the shard
    number = write_records(shard.path, records())
    write_whole(shard.part.with_suffix(".digests"), b"".join(digests))
    part = {"records": number, "targets": targets, "skipped": skipped, "duplicates": []}
    _write_part(shard, part)


def image_count(shard):
    """How many examples a finished shard was made from, the skipped ones included."""
    part = read_json(shard.part)
    return part["records"] + len(part["skipped"])


def describe(path):
    """Size and checksum of a shard file."""
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def write_records(path, records):
    """An ArrayRecord file, whole or not at all; returns the number of records.

    Nothing is compressed again: images and targets are.
    """
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    number = 0
    try:
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        for record in records:
            writer.write(record)
            number += 1
        writer.close()
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if ArrayRecordReader(str(temporary)).num_records() != number:
            raise DavError(f"{temporary} was not written whole: No space left on device?")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return number


def serializer():
    """record dict → bytes, in the form that TFDS reads; equal records give equal bytes."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = examples.features()
    to_proto = ExampleSerializer(features.get_serialized_info()).get_tf_example
    return lambda record: to_proto(features.encode_example(record)).SerializeToString(
        deterministic=True
    )


def _frames(shard, count):
    """The frames of all items; with skip_broken, broken items are told instead of raised."""
    for item in shard.items:
        try:
            yield from shard.builder.read(shard.raw, item)
        except DavError as error:
            if not shard.options.skip_broken:
                raise
            yield Skipped(str(item), str(error))
        count(1, 0)


def _record(shard, frame):
    """Frame → record, or Skipped."""
    target, options = frame.target, shard.options
    if isinstance(target, Target):
        frame = replace(frame, target=_with_sky(target, options.sky, frame.id))
        sky = frame.target.sky
        if not (target.valid if sky is None else target.valid & ~sky).any():
            return Skipped(frame.id, "its target has no valid pixel")
    size = target.values.shape if isinstance(target, Target) else None
    try:
        image, image_size = storing.store_image(
            frame.image,
            target_size=size,
            keep=shard.builder.keep_images,
            short_side_px=options.short_side_px,
            quality=options.quality,
        )
        if size is not None and tuple(image_size) != tuple(size):
            raise DavError(f"it is {image_size}, its target {size} (height, width)")
        return examples.encode_example(replace(frame, id=_utf8(frame.id)), image)
    except DavError as error:
        if target is None or options.skip_broken:
            return Skipped(frame.id, str(error))
        raise DavError(
            f"{shard.builder.name}, example {frame.id}: {error}; repair or download it again, or "
            "leave out what is broken with --skip_broken"
        ) from None


def _utf8(text):
    """Names of files may have any bytes; those that are no text become \\udcff and the like."""
    return text.encode(errors="backslashreplace").decode()


def _with_sky(target, folder, name):
    """The target with the user's sky mask added."""
    if not folder:
        return target
    path = Path(folder) / f"{name}.png"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DavError(f"the example {name} leads out of the folder of sky masks, {folder}")
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.exists() else None
    if mask is None:
        raise DavError(
            f"the sky mask {path} is missing or unreadable; python -m dav.data.sky makes them"
        )
    if mask.shape != target.values.shape:
        raise DavError(f"the sky mask {path} is {mask.shape}, its target {target.values.shape}")
    sky = mask > 127
    return replace(target, sky=sky if target.sky is None else sky | target.sky)


def drop_records(shard, dropped):
    """Writes a shard again without the records at the indices `dropped`, which are duplicates."""
    from array_record.python.array_record_module import ArrayRecordReader

    part = read_part(shard.part)
    if part["duplicates"] == dropped:
        return
    if part["duplicates"]:  # dropped others before: only the raw files know the rest
        build(shard)
        part = read_part(shard.part)
    if not dropped:
        return
    shard.part.unlink()  # killed between shard and part, the shard is made again
    reader = ArrayRecordReader(str(shard.path))
    gone = set(dropped)
    kept = (reader.read([i])[0] for i in range(part["records"]) if i not in gone)
    with contextlib.closing(reader):
        number = write_records(shard.path, kept)
    _write_part(shard, part | {"records": number, "duplicates": dropped})


def digests_of(shard):
    """uint64 [N, 2]: the digests of a shard's images before duplicates were dropped."""
    content = shard.part.with_suffix(".digests").read_bytes()
    return np.frombuffer(content, np.uint64).reshape(-1, 2)
