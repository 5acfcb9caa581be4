"""What processes tell each other, byte for byte: arrays on the device would round float64.

Every function here must be called by all processes of a run, in the same order.
"""

import pickle
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from dav.errors import DavError
from dav.runtime import parallel


def gather(value):
    """A picklable value of each process → the list of all, in every process."""
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


def all_or_none(work):
    """work(), unless it goes wrong in any process: that is raised in all of them, since the others
    would wait for it in vain."""
    if jax.process_count() == 1:
        return work()
    value = failure = said = None
    try:
        value = work()
    except Exception as error:
        failure = error
        kind = type(error) if isinstance(error, DavError) else DavError
        said = kind, f"process {jax.process_index()}: {error or type(error).__name__}"
    everywhere = gather(said)
    if failure:
        raise failure
    for kind, message in filter(None, everywhere):
        raise kind(message)
    return value


def from_first(work):
    """What work() returns in process 0, which alone does it, in every process."""
    return gather(all_or_none(lambda: work() if jax.process_index() == 0 else None))[0]


class AnyProcess:
    """Whether any process of a run says yes, the same answer in all of them.

    Asked once a step, it costs a sum over one number a device, and nothing waits for it: of several
    processes, it answers what was asked a step ago.
    """

    def __init__(self, mesh):
        self._sharding, self._before = parallel.batch_sharding(mesh), None
        self._any = jax.jit(jnp.any, out_shardings=parallel.replicated(mesh))

    def says(self, yes):
        """The processes' answer to the question before; that of a single one to this question."""
        if jax.process_count() == 1:
            return bool(yes)
        before, self._before = self._before, self._ask(yes)
        return before is not None and bool(before)

    def says_now(self, yes):
        """The processes' answer, once all of them are here."""
        return bool(yes) if jax.process_count() == 1 else bool(self._ask(yes))

    def _ask(self, yes):
        mine = np.full(jax.local_device_count(), bool(yes))
        return self._any(jax.make_array_from_process_local_data(self._sharding, mine))
