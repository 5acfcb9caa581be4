"""What the exact median of the losses costs, against a sort and other libraries' medians.

    python benchmarks/median.py [--turns=15] [--out=FILE.json]

In one run, in turns, the fastest turn of each, because others may use the machine: dav's masked
median, jnp.sort, jnp.nanmedian, NumPy's and PyTorch's, over every map of a mini student's batch
and of a training batch at full size. The others get whole maps, without a mask, where they have
none. Then the losses with their gradient, at the mini student's size. All medians must agree.
Prints ratios to dav's median, writes JSON. PyTorch is left out where it is not installed.
"""

import argparse
import json
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from dav.objectives.affine_invariant import affine_invariant
from dav.objectives.cutmix import cutmix_loss, draw_masks, neighbour
from dav.objectives.gradient_matching import gradient_matching
from dav.objectives.median import masked_median

SHAPES = (8, 168, 224), (12, 518, 518)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", default="benchmarks/results/median_cpu.json")
    arguments = parser.parse_args()
    rows = [measure_medians(shape, arguments.turns) for shape in SHAPES]
    result = {
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "turns": arguments.turns,
        "medians": rows,
        "losses": measure_losses(SHAPES[0], arguments.turns),
    }
    with open(arguments.out, "w") as file:
        file.write(json.dumps(result, indent=1) + "\n")


def measure_medians(shape, turns):
    maps = np.random.default_rng(0).random((shape[0], shape[1] * shape[2]), np.float32)
    seconds, values = fastest(medians(maps), turns)
    for name in ("jnp.nanmedian", "numpy"):
        np.testing.assert_allclose(values[name], values["dav"], rtol=1e-6, err_msg=name)
    ratios = {name: value / seconds["dav"] for name, value in seconds.items()}
    print(f"\n{shape[0]} maps of {shape[1]}×{shape[2]}")
    for name, value in seconds.items():
        print(f"  {name:<22} {1e3 * value:8.2f} ms  {ratios[name]:6.2f} of dav's")
    return {"shape": shape, "seconds": seconds, "ratio_to_dav": ratios}


def medians(maps):
    """Name → function without arguments, over the maps [B, P]."""
    on_device, valid = jnp.asarray(maps), jnp.ones(maps.shape, bool)
    ours, sort = jax.jit(masked_median), jax.jit(lambda x: jnp.sort(x, axis=-1))
    gradient = jax.jit(jax.grad(lambda x, valid: masked_median(x, valid).sum()))
    nanmedian = jax.jit(lambda x: jnp.nanmedian(x, axis=-1))
    found = {
        "dav": lambda: ours(on_device, valid),
        "dav, its gradient": lambda: gradient(on_device, valid),
        "sort": lambda: sort(on_device),
        "jnp.nanmedian": lambda: nanmedian(on_device),
        "numpy": lambda: np.median(maps, axis=-1),
    }
    try:
        import torch
    except ImportError:
        return found
    tensor = torch.from_numpy(maps)
    return found | {"torch (lower middle)": lambda: tensor.median(dim=-1).values}


def measure_losses(shape, turns):
    """Seconds of each loss with its gradient, for predictions [B, H, W]."""
    rng = np.random.default_rng(1)
    prediction, target = (jnp.asarray(x) for x in rng.random((2, *shape), np.float32))
    valid, masks = jnp.ones(shape, bool), draw_masks(jax.random.key(0), shape)

    def cutmix(prediction, **options):
        other = neighbour(target), neighbour(valid)
        return cutmix_loss(prediction, target, valid, *other, masks, **options)

    losses = {
        "affine-invariant": lambda p: affine_invariant(p, target, valid),
        "affine-invariant, trimmed": lambda p: affine_invariant(p, target, valid, trim=0.1),
        "gradient matching": lambda p: gradient_matching(p, target, valid),
        "CutMix": cutmix,
        "CutMix, trimmed": lambda p: cutmix(p, trim=0.1),
    }
    compiled = {
        name: jax.jit(jax.value_and_grad(lambda p, loss=loss: loss(p)[0]))
        for name, loss in losses.items()
    }
    parts = {name: lambda run=run: run(prediction) for name, run in compiled.items()}
    seconds, _ = fastest(parts, turns)
    print(f"\nlosses with gradient, {shape[0]} maps of {shape[1]}×{shape[2]}")
    for name, value in seconds.items():
        print(f"  {name:<26} {1e3 * value:8.2f} ms")
    return {"shape": shape, "seconds": seconds}


def fastest(parts, turns):
    """Least seconds of each part over all turns but the first, which compiles; and its result."""
    seconds, values = dict.fromkeys(parts, float("inf")), {}
    for turn in range(turns + 1):
        for name, part in parts.items():
            begin = time.perf_counter()
            values[name] = jax.block_until_ready(part())
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - begin)
    return seconds, values


if __name__ == "__main__":
    main()
