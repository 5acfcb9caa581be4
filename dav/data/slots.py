"""Memory that a worker process fills with batches and its parent reads: without a copy, and without
new pages for every batch, since to clear those takes a third as long as to decode.

The memory has no name in any file system and no fixed limit: whatever becomes of the processes,
nothing is left behind. Its first bytes say which slots are filled and not yet let go.
"""

import math
import mmap
import os
import tempfile
import time
import weakref
from dataclasses import dataclass

import numpy as np

PAGE = 4096  # slots and arrays start at multiples of it
CLOSING = 0  # the byte that asks the worker to give up; after it, one for each slot
IDLE_S = 0.001


@dataclass(frozen=True)
class Place:
    """Where the slots of one worker are, and what is where in each; small and picklable."""

    path: str
    slots: int
    slot_bytes: int
    layout: dict  # {kind: {name: (offset, shape, dtype)}}

    def map(self):
        """The memory, as uint8 [n]."""
        with open(self.path, "r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)

    def slot(self, memory, number):
        """One slot's bytes, uint8 [slot_bytes]: the base of every array made of them, so that it
        lives as long as they do."""
        start = PAGE + number * self.slot_bytes
        return np.frombuffer(memoryview(memory)[start : start + self.slot_bytes], np.uint8)

    def arrays(self, slot):
        """{kind: {name: array}} in a slot's bytes."""
        return {
            kind: {
                name: slot[start : start + size_of(shape, dtype)].view(dtype).reshape(shape)
                for name, (start, shape, dtype) in arrays.items()
            }
            for kind, arrays in self.layout.items()
        }


def take(memory, slots):
    """A worker's wait for a slot that nobody reads: from then on its own, until the parent lets it
    go. Returns its number; raises InterruptedError when the parent is closing."""
    while not memory[CLOSING]:
        for number in range(slots):
            if not memory[1 + number]:
                memory[1 + number] = 1
                return number
        time.sleep(IDLE_S)
    raise InterruptedError("reading has ended")


class Slots:
    """The parent's side: makes the memory, gives out arrays in it, lets slots go with them."""

    def __init__(self, slots, shapes):
        """For so many batches of arrays {kind: {name: (shape, dtype)}}."""
        layout, slot_bytes = lay_out(shapes)
        self._file = _nameless_file(PAGE + slots * slot_bytes)
        self.place = Place(_path_of(self._file), slots, slot_bytes, layout)
        self._memory = self.place.map()
        self._lent = set()

    def batch(self, number):
        """The arrays of a filled slot, which is let go when the last of them is no longer used.

        When so many batches are being held that the worker would be left without a slot, it gives
        copies instead.
        """
        slot = self.place.slot(self._memory, number)
        batch = self.place.arrays(slot)
        if len(self._lent) + 1 < self.place.slots:
            self._lent.add(number)
            weakref.finalize(slot, _let_go, self._memory, self._lent, number).atexit = False
            return batch
        copies = {
            kind: {name: array.copy() for name, array in arrays.items()}
            for kind, arrays in batch.items()
        }
        _let_go(self._memory, self._lent, number)
        return copies

    def close(self):
        """Asks the worker to give up. Arrays that are still held stay as they are."""
        self._memory[CLOSING] = 1
        self._file.close()


def _let_go(memory, lent, number):
    lent.discard(number)
    memory[1 + number] = 0


def lay_out(shapes):
    """{kind: {name: (shape, dtype)}} → with (offset, shape, dtype), and the bytes of all."""
    end, layout = 0, {}
    for kind, arrays in shapes.items():
        layout[kind] = {}
        for name, (shape, dtype) in arrays.items():
            layout[kind][name] = (end, shape, dtype)
            end += -(-size_of(shape, dtype) // PAGE) * PAGE
    return layout, end


def size_of(shape, dtype):
    """Bytes of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def _nameless_file(size):
    """An open file in memory; where the system has none, a temporary one on disk."""
    if hasattr(os, "memfd_create"):
        file = open(os.memfd_create("dav batches"), "r+b")  # noqa: SIM115
    else:
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file


def _path_of(file):
    if hasattr(os, "memfd_create"):
        return f"/proc/{os.getpid()}/fd/{file.fileno()}"
    return file.name
