"""Shards through the teacher: reading, the devices, encoding and writing, all at the same time.

What passes through the stages, in order, is every image of a shard and then the shard's end. The
images of a batch are always of one shard, in its own order: a shard's labels depend on nothing but
the shard and the teacher.
"""

import contextlib
import functools
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dav.data import labels
from dav.data.examples import decode_example
from dav.data.transforms import resize_image
from dav.errors import DavError
from dav.inference import resize_map
from dav.threads import AHEAD, THREADS, in_line, in_threads

IN_FLIGHT = 2  # batches given to the devices and not yet taken: the next one waits there already
WRITING = 2  # shards that are being written, or wait for it
REASON_LENGTH = 300
WIDEST = 20  # aspect ratio; at the label's size a strip of pixels would be a sheet of gigabytes


@dataclass(eq=False)
class ShardInHand:
    """An image shard that is being labelled, and what has been found of it so far."""

    name: str  # of the data set
    path: Path
    records: object  # its encoded image records, by index; None: it could not be opened
    labels: dict = field(default_factory=dict)  # encoded, by index
    figures: dict = field(default_factory=dict)  # what labels.describe says, by index
    ids: dict = field(default_factory=dict)
    failed: list = field(default_factory=list)  # {index, id, reason} of those without a label
    not_finite: int = 0  # of these, for what the teacher said
    damage: str = ""  # why it cannot be read
    seconds: float = 0.0


@dataclass(frozen=True)
class Item:
    """One image on its way; without an index, its shard's end."""

    shard: ShardInHand
    index: int | None


@dataclass(frozen=True)
class Ready:
    """An image as the network takes it, or why there is none."""

    name: str
    image: np.ndarray | None = None  # uint8 [h, w, 3]
    label_size: tuple = ()
    reason: str = ""


def run(teacher, shards, write, *, check, pool=None, ahead=AHEAD):
    """Labels `shards`, an iterator of ShardInHand, and calls write(shard) with each, in a thread;
    yields (shard, write's result) in order.

    check() is called between images, and ends the work by raising. `pool` is one of processes that
    encode, at most `ahead` labels at a time; without it threads do.
    """

    def prepare(item):
        return None if item.index is None else ready(item, teacher)

    with (
        ThreadPoolExecutor(1) as writer,
        contextlib.nullcontext(pool) if pool else ThreadPoolExecutor(THREADS) as encoders,
        in_threads(prepare, _items(shards, check)) as preparing,
        in_line(
            functools.partial(_begin_encoding, encoders),
            _answers(teacher, _batches(teacher, preparing)),
            ahead,
        ) as encoded,
        in_line(
            functools.partial(writer.submit, write), _whole_shards(encoded), WRITING
        ) as written,
    ):
        for shard, result in written:
            yield shard, result.result()


def _items(shards, check):
    for shard in shards:
        for index in range(len(shard.records) if shard.records else 0):
            check()
            if shard.damage:
                break
            yield Item(shard, index)
        yield Item(shard, None)


def ready(item, teacher):
    """Reads, decodes and resizes one image. Raises DavError if its shard is damaged."""
    record = item.shard.records[item.index]
    name = record["id"].decode()
    try:
        image = decode_example(record)["image"]
    except DavError as error:
        return Ready(name, reason=str(error)[:REASON_LENGTH])
    height, width = image.shape[:2]
    if max(height, width) > WIDEST * min(height, width):
        return Ready(name, reason=f"{width}×{height} px is wider than {WIDEST}:1, or as narrow")
    return Ready(
        name,
        resize_image(image, teacher.shape(height, width)),
        teacher.label_size(height, width),
    )


def _batches(teacher, preparing):
    """(items, images uint8 [n, h, w, 3]) of one shape; (item, None) for a shard's end."""
    waiting = {}
    for item, future in preparing:
        shard = item.shard
        if item.index is None:
            for bucket in waiting.values():
                yield _stack(bucket)
            waiting = {}
            yield item, None
            continue
        try:
            found = future.result()
        except DavError as error:
            shard.damage = str(error)
            continue
        shard.ids[item.index] = found.name
        if found.image is None:
            shard.labels[item.index] = labels.encode_missing(found.name, found.reason)
            shard.failed.append(_failure(item.index, found.name, found.reason))
            continue
        bucket = waiting.setdefault(found.image.shape, [])
        bucket.append((item, found))
        if len(bucket) == teacher.full:
            yield _stack(waiting.pop(found.image.shape))


def _stack(bucket):
    return [(item, found.label_size) for item, found in bucket], np.stack(
        [found.image for _, found in bucket]
    )


def _failure(index, name, reason):
    return {"index": index, "id": name, "reason": reason}


def _answers(teacher, batches):
    """(item, its map float32 [h, w], its label's size) for every image, or (item, None, None)."""
    asked = deque()
    for items, images in batches:
        if images is None:
            asked.append((items, None))
        else:
            asked += [(part, teacher.start(i)) for part, i in _full(teacher, items, images)]
        while len(asked) > IN_FLIGHT:
            yield from _answer(*asked.popleft())
    while asked:
        yield from _answer(*asked.popleft())


def _full(teacher, items, images):
    """Batches of the sizes that there are programs for, filled up with their first image."""
    size = teacher.rest(len(images)) if len(images) < teacher.full else teacher.full
    for start in range(0, len(images), size):
        part = images[start : start + size]
        fill = np.repeat(part[:1], size - len(part), axis=0)
        yield items[start : start + size], np.concatenate([part, fill])


def _answer(items, maps):
    if maps is None:
        yield items, None, None
        return
    for (item, label_size), disparity in zip(items, np.asarray(maps), strict=False):
        yield item, disparity, label_size


def _begin_encoding(pool, answer):
    """A future of (encoded label, what its map is like), or of None for a shard's end."""
    item, disparity, size = answer
    if disparity is None:
        end = Future()
        end.set_result(None)
        return end
    return pool.submit(encode, item.shard.ids[item.index], disparity, size)


def encode(name, disparity, size):
    """The label of one image, at its own size, and labels.describe of it. A map that is not finite
    gives an encoded record without a label, and the reason."""
    disparity = disparity if disparity.shape == size else resize_map(disparity, size)
    if not np.isfinite(disparity).all():
        reason = "the teacher's map is not finite"
        return labels.encode_missing(name, reason), reason
    return labels.encode_label(name, disparity), labels.describe(disparity)


def _whole_shards(encoded):
    """The shards whose last image has been encoded."""
    begin = time.monotonic()
    for (item, *_), future in encoded:
        shard, found = item.shard, future.result()
        if found is None:
            shard.seconds, begin = time.monotonic() - begin, time.monotonic()
            yield shard
            continue
        shard.labels[item.index], figures = found
        if isinstance(figures, str):
            shard.not_finite += 1
            shard.failed.append(_failure(item.index, shard.ids[item.index], figures))
        else:
            shard.figures[item.index] = figures
