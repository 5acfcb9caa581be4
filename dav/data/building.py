"""Shards built one after the other here, or by several processes at once."""

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from dav.data import shards
from dav.errors import DavError
from dav.files import checksum

TELL_EVERY_S = 1.0
_done = None  # in a worker process: the numbers of items and images that all are done with


def cores():
    """The cores that this process may use: of a shared machine, those that were allotted to it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_process(work, tell):
    """Builds the shards here, in order. tell(items, images) as they are done with."""
    items = images = 0

    def count(more_items, more_images):
        nonlocal items, images
        items, images = items + more_items, images + more_images
        tell(items, images)

    for shard in work:
        shards.build(shard, count)


def in_processes(work, tell, *, processes):
    """Builds the shards by so many worker processes. The first error ends all of them."""
    if processes == 1 or len(work) <= 1:
        return in_process(work, tell)
    context = multiprocessing.get_context("spawn")
    done = context.Array("q", 2)
    pool = ProcessPoolExecutor(
        min(processes, len(work)), context, initializer=_start, initargs=(done,)
    )
    pending = set()
    try:
        with _without_interrupts():
            pending |= {pool.submit(_build, shard) for shard in work}
        for future in _finished(pending):
            if future is not None:
                future.result()
            tell(*done)
    except BrokenProcessPool:
        raise DavError(
            "a worker process was killed, for want of memory perhaps; run the same command again, "
            "with fewer --processes: what is finished is kept"
        ) from None
    finally:
        if not all(future.done() for future in pending):
            for worker in list((pool._processes or {}).values()):
                worker.terminate()
        pool.shutdown(wait=True, cancel_futures=True)  # at once: a second call would not wait


@contextlib.contextmanager
def _without_interrupts():
    """Processes begun inside never see Ctrl-C, which a terminal sends to all: they are ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _start(done):
    """A worker must not outlive a parent that was killed, nor use more than its core."""
    global _done
    _done = done
    import cv2

    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _build(shard):
    def count(items, images):
        with _done.get_lock():
            _done[0] += items
            _done[1] += images

    shards.build(shard, count)


def checksums(paths):
    """SHA-256 of files, several at a time: hashing lets other threads run."""
    with ThreadPoolExecutor(min(8, cores())) as pool:
        return list(pool.map(_checksum, paths))


def _checksum(path):
    """A file that the disk does not give back is as damaged as a missing one."""
    try:
        return checksum(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return ""
