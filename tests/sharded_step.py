"""Runs three training steps on a given mesh and saves losses and parameters.

    python tests/sharded_step.py DEVICES FSDP RECIPE OUT.npz

A process of its own, since the number of simulated devices is fixed once jax has started.
"""

import sys

import jax
import numpy as np

from dav import recipe
from dav.data import loader
from dav.main import parse
from dav.runtime import parallel

STEPS = 3


def random_batch(config, rng):
    """Noise with structure: smooth ramps as truth, some pixels invalid."""
    height, width = config.crop_px
    batch = {}
    for kind, size in config.batch.items():
        ramp = np.linspace(0, 1, height, dtype=np.float32)[None, :, None]
        disparity = 0.2 + ramp * rng.uniform(0.5, 2, (size, 1, width)).astype(np.float32)
        batch[kind] = {
            "image": rng.integers(0, 256, (size, height, width, 3), dtype=np.uint8),
            "disparity": disparity,
            "valid": rng.random(disparity.shape) < 0.9,
        }
    return batch


def main(devices, fsdp, name, out):
    jax.config.update("jax_num_cpu_devices", devices)
    config, _, _ = parse(
        [
            "dav",
            f"--config=configs/{name}.py",
            "--config.batch.labelled=8",
            "--config.crop_px=(56, 70)",
            f"--config.mesh.fsdp={fsdp}",
            "--config.mesh.min_sharded_elements=1000",
            *(["--config.batch.unlabelled=16"] if name == "student" else []),
        ]
    )
    trainer = recipe.make_trainer(config)
    state, frozen = trainer.init(), trainer.frozen()
    if fsdp > 1:  # the rule must really have split something
        kernel = state.params["encoder"]["block_00"]["mlp"]["fc1"]["kernel"]
        assert kernel.addressable_shards[0].data.size * fsdp == kernel.size
    rng, losses = np.random.default_rng(0), []
    for _ in range(STEPS):
        batch = loader.to_device(random_batch(config, rng), parallel.batch_sharding(trainer.mesh))
        state, metrics = trainer.step(state, frozen, batch)
        losses.append({key: float(value) for key, value in metrics.items()})
    params = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    figures = {f"metric {key}": np.array([loss[key] for loss in losses]) for key in losses[0]}
    np.savez(out, **params, **figures)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
