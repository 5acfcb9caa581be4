"""How the process gets its memory from the system."""

import ctypes
import gc
from pathlib import Path

# glibc's mallopt parameters, from its malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def keep_freed_memory():
    """Lets the C library keep what is freed instead of returning it to the system.

    On CPU every training step allocates its temporaries anew, hundreds of megabytes, and the
    system would clear each page again: a quarter of the step. Must be called before jax starts its
    threads. Does nothing where the C library has no mallopt, and nothing beside an accelerator:
    there the host's threads decode images, and are better off with an arena each.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and not has_accelerator():
        mallopt(ARENA_MAX, 1)
        mallopt(MMAP_MAX, 0)  # no block is so large that freeing it gives it back
        mallopt(TRIM_THRESHOLD, -1)  # never


def return_freed_pages():
    """Gives back pages that are free now; what is allocated next takes them anew."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim and not has_accelerator():
        trim(0)


def return_freed_memory():
    """Between two stages: gives back what the finished one left, compiled programs included."""
    import jax

    jax.clear_caches()
    gc.collect()
    return_freed_pages()


def has_accelerator():
    """Whether a GPU or TPU is plugged in, without starting jax."""
    devices = Path("/dev")
    return any(any(devices.glob(name)) for name in ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*"))
