"""Work in threads beside the main one: reading ahead of the network, writing behind it."""

import contextlib
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
        contextlib.closing(_pairs(pool, work, items)) as pairs,
    ):
        yield pairs


def _pairs(pool, work, items):
    waiting = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        while waiting and (len(waiting) >= AHEAD or waiting[0][1].done()):
            yield waiting.popleft()
    yield from waiting
