"""What processes tell each other, byte for byte: arrays on the device would round float64."""

import pickle
import zlib

import jax
import numpy as np


def gather(value):
    """A picklable value of each process → the list of all, in every process. All must call it."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    content = np.frombuffer(zlib.compress(pickle.dumps(value), 1), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([content.size], np.int32)).ravel()
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [
        pickle.loads(zlib.decompress(row[:size].tobytes()))
        for row, size in zip(np.asarray(rows), sizes, strict=True)
    ]
