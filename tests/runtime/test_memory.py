"""Memory that the C library was told to keep is given back when it is asked for."""

import subprocess
import sys

import pytest
from conftest import ROOT

from dav.runtime import memory

# Every second of many blocks is freed: what is free lies in holes, which no top of a heap reaches.
SCRIPT = """
import ctypes
from pathlib import Path
from dav.runtime import memory

memory.has_accelerator = lambda: False
memory.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

blocks = [library.malloc(2**20) for _ in range(100)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
for block in blocks[::2]:
    library.free(block)
before = resident_mib()
memory.return_freed_pages()
print(before - resident_mib())
"""


def test_pages_in_holes_of_the_heap_are_given_back():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 45 < float(done.stdout) < 60


# As large as the temporaries of a step of ViT-S at 518 pixels, which are one block.
LARGE = """
import ctypes, resource
from dav.runtime import memory

memory.has_accelerator = lambda: False
memory.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use(size=2200 * 2**20):
    block, before = library.malloc(size), faults()
    ctypes.memset(block, 1, size)
    library.free(block)
    return faults() - before

print(use(), use())
"""


def test_a_block_of_gigabytes_that_was_freed_keeps_its_pages():
    done = subprocess.run(
        [sys.executable, "-c", LARGE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = map(int, done.stdout.split())
    assert first > 1000 and second < 10


@pytest.mark.parametrize("accelerator", [True, False])
def test_beside_an_accelerator_nothing_is_done(monkeypatch, accelerator):
    asked = []
    monkeypatch.setattr(memory, "has_accelerator", lambda: accelerator)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library(asked))
    memory.return_freed_pages()
    assert asked == ([] if accelerator else [0])


class Library:
    """A C library that notes what it is asked."""

    def __init__(self, asked):
        self.malloc_trim = asked.append
