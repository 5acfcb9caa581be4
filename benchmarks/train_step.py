"""How fast a training step is, against what the machine's matrix products could do.

    python benchmarks/train_step.py [--config=configs/student.py] [--steps=10] [--out=FILE.json]

In one run, alternating: the whole step, its parts, and a large float32 matrix product, whose rate
is the limit. Prints medians, the share of the limit, and what the losses and perturbations cost
beside the networks; the loss's median against a sort, which it replaces.
"""

import argparse
import json
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from dav import recipe
from dav.main import parse
from dav.models.depth_anything import SIZES
from dav.objectives.median import masked_median
from dav.runtime import perf
from dav.runtime.memory import keep_freed_memory
from dav.step import strong_view


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/student.py")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results/train_step_cpu.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    config, _, _ = parse(["dav", f"--config={arguments.config}"])
    medians, flops = measure(config, arguments.steps)
    limit = 2 * 1024**3 / medians["matmul_1024"]
    images = sum(config.batch.values())
    result = {
        "config": f"{config.recipe}:{config.preset}",
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "images_per_s": images / medians["step"],
        "step_gflop": flops / 1e9,
        "limit_gflop_per_s": limit / 1e9,
        "share_of_limit": flops / medians["step"] / limit,
        "median_against_sort": medians["sort"] / medians["median"],
        "perturbations_share_of_step": medians.get("perturbations", 0.0) / medians["step"],
        "seconds": medians,
    }
    for name, value in result.items():
        if name != "seconds":
            print(f"{name:<28} {value:.3g}" if isinstance(value, float) else f"{name:<28} {value}")
    for name, value in medians.items():
        print(f"  {name:<26} {1e3 * value:.1f} ms")
    with open(arguments.out, "w") as file:
        file.write(json.dumps(result, indent=1) + "\n")


def measure(config, repeats):
    """Median seconds of each part, measured in turns, and the step's operations."""
    trainer = recipe.make_trainer(config)
    state, frozen = trainer.init(), trainer.frozen()
    batch = jax.device_put(random_batch(config))
    maps = jax.random.normal(jax.random.key(0), (8, config.crop_px[0] * config.crop_px[1]))
    valid = jnp.ones(maps.shape, bool)
    square = jnp.ones((1024, 1024))
    holder = {"state": state}

    def step():
        holder["state"], metrics = trainer.step(holder["state"], frozen, batch)
        return metrics

    multiply, sort = jax.jit(lambda x: x @ x), jax.jit(lambda x: jnp.sort(x, axis=-1))
    median = jax.jit(masked_median)
    parts = {
        "step": step,
        "matmul_1024": lambda: multiply(square),
        "median": lambda: median(maps, valid),
        "sort": lambda: sort(maps),
    }
    if "unlabelled" in batch:
        perturb = jax.jit(lambda images: strong_view(images, 0, 0))
        parts["perturbations"] = lambda: perturb(batch["unlabelled"]["image"])
    seconds = {name: [] for name in parts}
    for turn in range(repeats + 2):  # two to compile and warm up
        for name, part in parts.items():
            begin = time.perf_counter()
            jax.block_until_ready(part())
            if turn >= 2:
                seconds[name].append(time.perf_counter() - begin)
    grid, images = recipe.crop_grid(config), sum(config.batch.values())
    frozen_images = config.batch.get("unlabelled", 0)
    size = SIZES[config.model.size]
    flops = perf.training_flops(size, grid, images, frozen_images=frozen_images)
    return {name: statistics.median(times) for name, times in seconds.items()}, flops


def random_batch(config):
    rng = np.random.default_rng(0)
    return {
        kind: {
            "image": rng.integers(0, 256, (size, *config.crop_px, 3), dtype=np.uint8),
            "disparity": rng.random((size, *config.crop_px), dtype=np.float32),
            "valid": np.ones((size, *config.crop_px), bool),
        }
        for kind, size in config.batch.items()
    }


if __name__ == "__main__":
    main()
