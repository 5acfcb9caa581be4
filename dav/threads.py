"""Work in threads beside the main one: reading ahead of the network, writing behind it."""

import contextlib
import functools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

THREADS = min(8, os.cpu_count() or 1)
AHEAD = THREADS + 2  # items begun and not yet taken: what is held, and what an end waits for


@contextlib.contextmanager
def in_threads(work, items):
    """Gives an iterator of (item, future of work(item)) in order, each finished or next in line.

    Items are drawn in the calling thread, at most AHEAD before their results are taken. Work that
    has begun is always finished, whatever happens in between.
    """
    with (
        ThreadPoolExecutor(THREADS) as pool,
        in_line(functools.partial(pool.submit, work), items, AHEAD) as pairs,
    ):
        yield pairs


@contextlib.contextmanager
def in_line(begin, items, ahead):
    """The same for work that begin(item) → future begins anywhere, on at most `ahead` items."""
    with contextlib.closing(_pairs(begin, items, ahead)) as pairs:
        yield pairs


def _pairs(begin, items, ahead):
    waiting = deque()
    for item in items:
        waiting.append((item, begin(item)))
        while waiting and (len(waiting) >= ahead or waiting[0][1].done()):
            yield waiting.popleft()
    yield from waiting
