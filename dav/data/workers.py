"""Worker processes that make batches ahead, through Grain.

Each of n workers makes every n-th whole batch, so batches do not depend on their number; SLOTS
batches of each are being made, waiting or in use.

Workers are spawned: they import the main module anew, so it must be light and guarded. They never
use an accelerator, they leave Ctrl-C and SIGTERM to the process that started them, and they end
with it.
"""

import contextlib
import ctypes
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import resource_tracker

import grain

from dav.data import slots
from dav.data.sources import Subset
from dav.errors import DavError

SLOTS = 3
DIED = "terminated unexpectedly"  # Grain's words for a worker that did not end by itself
# glibc's mallopt parameters, from its malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def usable_cores():
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Worker:
    """One worker process as its parent sees it."""

    iterator: object  # Grain's, of numbers of filled slots
    slots: slots.Slots


@contextlib.contextmanager
def reading(batches, start, stop, processes):
    """Gives an iterator of batches[start], …, batches[stop − 1], made by worker processes.

    What goes wrong in a worker is raised here: DavErrors as they are, anything else as
    RuntimeError with its traceback.
    """
    processes = min(processes, stop - start)
    if processes < 1:
        yield iter(())
        return
    allow_grain_to_start()
    resource_tracker.ensure_running()  # started later, it would let signals through again
    workers = [make_worker(batches, start + i, stop, processes) for i in range(processes)]
    with ThreadPoolExecutor(processes, initializer=leave_signals_alone) as pool:
        waiting = deque((worker, pool.submit(next, worker.iterator)) for worker in workers)
        turns = _in_turn(pool, waiting, stop - start)
        try:
            yield turns
        finally:
            turns.close()
            for worker in workers:
                worker.slots.close()
            wait([future for _, future in waiting])
            waiting.clear()
            wait([pool.submit(worker.iterator.close) for worker in workers])
    workers.clear()
    gc.collect()  # Grain's iterators hold each other


def _in_turn(pool, waiting, count):
    """The workers' next batches, one worker after the other, each asked again at once."""
    for left in range(count, 0, -1):
        worker, future = waiting.popleft()
        try:
            number = future.result()
        except RuntimeError as error:
            if DIED not in str(error):
                raise
            raise DavError(
                "a process that reads data was killed, most likely for want of memory; start again "
                "with fewer (config.data.workers)"
            ) from error
        if left > len(waiting) + 1:
            waiting.append((worker, pool.submit(next, worker.iterator)))
        yield worker.slots.batch(number)


def make_worker(batches, start, stop, step):
    """A Worker for every step-th batch, whose process starts at its first next()."""
    memory = slots.Slots(SLOTS, batches.shapes())
    mine = grain.MapDataset.source(Subset(InSlots(batches, memory.place), start, stop))[::step]
    in_line = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    options = grain.multiprocessing.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=1)
    made_ahead = mine.to_iter_dataset(in_line).mp_prefetch(options, worker_init_fn=begin)
    return Worker(iter(made_ahead), memory)


def allow_grain_to_start():
    """Grain reads a flag of absl's, which refuses as long as nobody has parsed any."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def leave_signals_alone():
    """Processes that this thread starts never see Ctrl-C and SIGTERM: a group's members all get
    them, but what is to be finished first, only the training loop knows."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


def begin(worker, workers):
    """What a worker does first."""
    import cv2

    leave_signals_alone()
    cv2.setNumThreads(1)  # one process a core: more threads would only be in each other's way
    keep_freed_memory()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # Grain imports it; nothing here uses it
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def keep_freed_memory():
    """Lets the C library keep the pages of freed images: the system would have to clear others for
    the next ones, which takes as long as decoding does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(MMAP_THRESHOLD, 1 << 30)
        mallopt(TRIM_THRESHOLD, (1 << 31) - 1)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


@dataclass(frozen=True)
class InSlots:
    """A worker's view of batches: makes each in a slot and gives its number; errors come as what
    can be sent."""

    batches: object
    place: slots.Place

    def __len__(self):
        return len(self.batches)

    @functools.cached_property
    def memory(self):
        """The worker's own mapping of its slots."""
        return self.place.map()

    def __getitem__(self, step):
        try:
            number = slots.take(self.memory, self.place.slots)
            slot = self.place.slot(self.memory, number)
            self.batches.read(step, self.place.arrays(slot))
            return number
        except DavError:
            raise
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            raise RuntimeError(f"a data worker failed:\n{text}") from None
