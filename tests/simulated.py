"""Several devices on a machine that has none but its cores."""

import os

import jax


def simulate_devices(count):
    """From now on this process sees `count` CPU devices; to be called before it uses any.

    XLA runs a program's part of each device on a pool that has no more threads than devices. When
    two programs with collectives have been started, the parts of one may take so many threads
    that the other's wait for one another without end. Twice as many threads let both be.
    """
    os.environ["PJRT_NPROC"] = str(max(2 * count, os.cpu_count()))
    jax.config.update("jax_num_cpu_devices", count)
