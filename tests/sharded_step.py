"""Runs single student steps on a given mesh; saves metrics, parameters and optimiser state.

    python tests/sharded_step.py PORT PROCESS PROCESSES DEVICES FSDP OUT.npz PERTURB [SIZE]

A process of its own, since the number of simulated devices is fixed once jax has started; DEVICES
are those of one process, PERTURB is 0 or 1. SIZE is `tiny` (compiles quickly) or one of the model's
own.
"""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from simulated import simulate_devices

from dav import recipe
from dav.data import loader
from dav.main import parse
from dav.models.depth_anything import SIZES, Architecture
from dav.runtime import parallel

BATCHES = 2
TINY = Architecture(64, 4, 2, (0, 1, 2, 3), 16, (8, 16, 32, 64), position_grid=4)


def random_batch(config, seed):
    """Noise in front of smooth surfaces, some pixels invalid."""
    rng = np.random.default_rng(seed)
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


def make_trainer(fsdp, perturb, size):
    SIZES["tiny"] = TINY
    config, _, _ = parse(
        [
            "dav",
            "--config=configs/student.py",
            f"--config.model.size={size}",
            "--config.batch.labelled=8",
            "--config.batch.unlabelled=16",
            "--config.crop_px=(28, 42)",
            f"--config.mesh.fsdp={fsdp}",
            f"--config.objective.perturb={perturb == '1'}",
            "--config.mesh.min_sharded_elements=1000",
        ]
    )
    return config, recipe.make_trainer(config)


def main(address, process, processes, devices, fsdp, out, perturb, size="tiny"):
    simulate_devices(devices)
    if processes > 1:
        jax.distributed.initialize(address, processes, process)
    config, trainer = make_trainer(fsdp, perturb, size)
    # Another encoder than the student's own, so that the alignment has something to do.
    frozen = jax.tree.map(lambda x: jnp.roll(x, 1, axis=-1), trainer.frozen())
    state = trainer.init()
    kernel = state.params["encoder"]["block_00"]["mlp"]["fc1"]["kernel"]
    # The rule must really have split something, and the frozen encoder by the same rule.
    assert kernel.addressable_shards[0].data.size * fsdp == kernel.size
    assert frozen["block_00"]["mlp"]["fc1"]["kernel"].sharding == kernel.sharding
    sharding = parallel.batch_sharding(trainer.mesh)
    arrays = {}
    for seed in range(BATCHES):
        batch = loader.to_device(own_rows(random_batch(config, seed), sharding), sharding)
        given = trainer.init()
        state, metrics = trainer.step(given, frozen, batch)
        # Every buffer must have been given away, or memory would hold two states.
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
        arrays |= {f"{seed} metric {name}": np.asarray(value) for name, value in metrics.items()}
        whole = gather((state.params, state.opt_state), trainer.mesh)
        for path, leaf in jax.tree_util.tree_leaves_with_path(whole):
            arrays[f"{seed} {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    if process == 0:
        np.savez(out, **arrays)


def own_rows(batch, sharding):
    """What a process's devices hold of a global batch."""
    return jax.tree.map(lambda whole: whole[loader.local_rows(sharding, len(whole))], batch)


def gather(tree, mesh):
    """The same whole on every device."""
    return jax.jit(lambda x: x, out_shardings=parallel.replicated(mesh))(tree)


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    address, *numbers = sys.argv[1:6]
    main(address, *map(int, numbers), *sys.argv[6:])
