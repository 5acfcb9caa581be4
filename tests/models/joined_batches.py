"""Joins batches of several sizes on simulated devices, parts them again, and tells what was sent.

    python tests/models/joined_batches.py DEVICES SIZE...

A process of its own, since the number of simulated devices is fixed once jax has started. Prints
JSON: whether the parts are what was joined, whether what is joined is split over all devices, the
rows that the first of them holds, and the kinds of all collectives of the compiled programs. Rows
of batch number b are 100 b, 100 b + 1, …
"""

import json
import sys

import jax
import numpy as np
from simulated import simulate_devices

from dav.models.placement import join_batches, part_batches
from dav.runtime import parallel, traffic


def main(devices, *sizes):
    simulate_devices(devices)
    mesh = parallel.make_mesh(fsdp=2, devices=jax.devices())
    sharding = parallel.batch_sharding(mesh)
    batches = [100 * b + np.arange(size, dtype=np.float32) for b, size in enumerate(sizes)]
    fits = all(size % devices == 0 for size in sizes)
    given = [jax.device_put(x, sharding if fits else parallel.replicated(mesh)) for x in batches]
    join = jax.jit(join_batches).lower(given).compile()
    joined = join(given)
    part = jax.jit(part_batches, static_argnums=1).lower(joined, sizes).compile()
    parted = part(joined)
    texts = (join.as_text(), part.as_text())
    told = {
        "same": [np.array_equal(*pair) for pair in zip(parted, batches, strict=True)],
        "split": joined.sharding.is_equivalent_to(sharding, joined.ndim),
        "first": joined.addressable_shards[0].data.tolist(),
        "sent": [one.kind for text in texts for one in traffic.collectives(text, devices)],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
