"""Runs single student steps on a given mesh; saves metrics, parameters and optimiser state.

    python tests/sharded_step.py DEVICES FSDP OUT.npz [SIZE]

A process of its own, since the number of simulated devices is fixed once jax has started. SIZE is
`tiny` (compiles quickly) or one of the model's own.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from dav import recipe
from dav.data import loader
from dav.main import parse
from dav.models.depth_anything import SIZES, Architecture
from dav.runtime import parallel

BATCHES = 2
TINY = Architecture(64, 4, 2, (0, 1, 2, 3), 16, (8, 16, 32, 64), position_grid=4)


def random_batch(config, rng):
    """Noise in front of smooth surfaces, some pixels invalid."""
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


def make_trainer(fsdp, size):
    SIZES["tiny"] = TINY
    config, _, _ = parse(
        [
            "dav",
            "--config=configs/student.py",
            f"--config.model.size={size}",
            "--config.batch.labelled=8",
            "--config.batch.unlabelled=16",
            "--config.crop_px=(56, 70)",
            f"--config.mesh.fsdp={fsdp}",
            "--config.mesh.min_sharded_elements=1000",
        ]
    )
    return config, recipe.make_trainer(config)


def main(devices, fsdp, out, size="tiny"):
    jax.config.update("jax_num_cpu_devices", devices)
    config, trainer = make_trainer(fsdp, size)
    # Another encoder than the student's own, so that the alignment has something to do.
    frozen = jax.tree.map(lambda x: jnp.roll(x, 1, axis=-1), trainer.frozen())
    state = trainer.init()
    kernel = state.params["encoder"]["block_00"]["mlp"]["fc1"]["kernel"]
    # The rule must really have split something, and the frozen encoder by the same rule.
    assert kernel.addressable_shards[0].data.size * fsdp == kernel.size
    assert frozen["block_00"]["mlp"]["fc1"]["kernel"].sharding == kernel.sharding
    arrays = {}
    for seed in range(BATCHES):
        host = random_batch(config, np.random.default_rng(seed))
        batch = loader.to_device(host, parallel.batch_sharding(trainer.mesh))
        state, metrics = trainer.step(trainer.init(), frozen, batch)
        arrays |= {f"{seed} metric {name}": np.asarray(value) for name, value in metrics.items()}
        for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.opt_state)):
            arrays[f"{seed} {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
