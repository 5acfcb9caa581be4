"""Tells what a small network's gradients send, on several numbers of simulated devices.

    python tests/models/sent_by_gradients.py FSDP DEVICES...

A process of its own, since the number of simulated devices is fixed once jax has started. Prints a
JSON line for each number: bytes of the parameters that are split over FSDP and of the others, and
[kind, bytes, group] of every collective of the compiled program. Each device has one image.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from dav.models.dpt import Decoder
from dav.models.vit import Encoder
from dav.runtime import parallel, traffic

GRID, PATCH_PX, MIN_SPLIT = (2, 3), 14, 1000


def loss(params, images):
    """One block, whose map the decoder takes four times."""
    taps = Encoder(32, 1, 2, (0,), position_grid=4).apply({"params": params["encoder"]}, images)
    maps = Decoder(16, (8, 16, 24, 32)).apply({"params": params["decoder"]}, taps * 4)
    return jnp.mean(maps**2)


def shapes(images):
    encoder, decoder = Encoder(32, 1, 2, (0,), position_grid=4), Decoder(16, (8, 16, 24, 32))
    key = jax.random.key(0)
    taps = jax.ShapeDtypeStruct((len(images), *GRID, 32), jnp.float32)
    return {
        "encoder": jax.eval_shape(encoder.init, key, images)["params"],
        "decoder": jax.eval_shape(decoder.init, key, [taps] * 4)["params"],
    }


def measure(fsdp, devices):
    mesh = parallel.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
    images = np.zeros((devices, GRID[0] * PATCH_PX, GRID[1] * PATCH_PX, 3), np.float32)
    params = shapes(images)
    placed = parallel.tree_sharding(params, mesh, MIN_SPLIT)

    @functools.partial(
        jax.jit, in_shardings=(placed, parallel.batch_sharding(mesh)), out_shardings=placed
    )
    def gradients(params, images):
        return jax.grad(loss)(params, images)

    given = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        (params, images),
        (placed, parallel.batch_sharding(mesh)),
    )
    text = gradients.lower(*given).compile().as_text()
    size = {True: 0, False: 0}
    for leaf, sharding in zip(jax.tree.leaves(params), jax.tree.leaves(placed), strict=True):
        size[sharding.is_fully_replicated] += 4 * leaf.size
    found = [[one.kind, one.bytes, one.group] for one in traffic.collectives(text, devices)]
    return {"devices": devices, "split": size[False], "whole": size[True], "sent": found}


if __name__ == "__main__":
    fsdp, *numbers = map(int, sys.argv[1:])
    jax.config.update("jax_num_cpu_devices", max(numbers))
    for number in numbers:
        print(json.dumps(measure(fsdp, number)))
