"""Shards built one after the other here, or by several processes at once."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from dav.data import shards
from dav.errors import DavError
from dav.files import checksum

TELL_EVERY_S = 1.0
_images = None  # in a worker process: the number of images that all of them have worked on


def in_process(work, tell):
    """Builds the shards here, in order. tell(items, images) after every shard."""
    items = images = 0

    def count(number):
        nonlocal images
        images += number
        tell(items, images)

    for shard in work:
        shards.build(shard, count)
        items += len(shard.items)
        tell(items, images)


def in_processes(work, tell, *, processes):
    """Builds the shards by so many worker processes. The first error ends all of them."""
    if processes == 1 or len(work) <= 1:
        return in_process(work, tell)
    context = multiprocessing.get_context("spawn")
    images = context.Value("q", 0)
    pool = ProcessPoolExecutor(
        min(processes, len(work)), context, initializer=_start, initargs=(images,)
    )
    items = 0
    try:
        pending = {pool.submit(_build, shard): shard for shard in work}
        for future in _finished(pending):
            if future is not None:
                future.result()
                items += len(pending[future].items)
            tell(items, images.value)
    except BrokenProcessPool:
        raise DavError(
            "a worker process was killed, for want of memory perhaps; run the same command again, "
            "with fewer --processes: what is finished is kept"
        ) from None
    finally:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if items < sum(len(shard.items) for shard in work):
            for worker in workers:
                worker.terminate()
        pool.shutdown(wait=True)


def _finished(pending):
    """The futures as they finish, and None now and then while there are none."""
    left = set(pending)
    while left:
        try:
            for future in as_completed(left, timeout=TELL_EVERY_S):
                left.discard(future)
                yield future
        except TimeoutError:
            yield None


def _start(images):
    """A worker must not outlive a parent that was killed, nor use more than its core."""
    global _images
    _images = images
    import cv2

    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _build(shard):
    def count(number):
        with _images.get_lock():
            _images.value += number

    shards.build(shard, count)


def checksums(paths):
    """SHA-256 of files, several at a time: hashing lets other threads run."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(checksum, paths))
