"""One process of a training run of a tiny network, on images made up in memory.

    python tests/one_of_many.py PORT PROCESS PROCESSES DEVICES WORKDIR [--config.KEY=VALUE ...]

DEVICES are those of this process. Every batch that it reads is noted in
WORKDIR.read-PROCESS.
"""

import json
import sys
from pathlib import Path

import cv2
import jax
import numpy as np

OPTIONS = (
    "--config.model.size=tiny",
    "--config.batch.labelled=8",
    "--config.crop_px=(28, 42)",
    "--config.train_short_side_px=30",
    "--config.checkpoint_every=3",
    "--config.log_every=1",
    "--config.optimizer.ema_decay=0.9",
    "--config.mesh.min_sharded_elements=200",
)
TEACHER = "--config=configs/teacher.py"
IMAGES = 20


class Scenes:
    """Smooth surfaces under a noisy photograph, as a data set's examples with encoded images."""

    def __init__(self, name):
        self.name = name

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        rng = np.random.default_rng([len(self.name), index])
        image = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
        ramp = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
        disparity = 0.2 + ramp * rng.uniform(0.5, 2, (1, 48)).astype(np.float32)
        return {
            "id": f"{self.name}/{index}",
            "image": cv2.imencode(".png", image)[1].tobytes(),
            "disparity": disparity,
            "valid": rng.random(disparity.shape) < 0.9,
        }


class Noted:
    """Batches that write down what is read of them: [step, processes, {kind: {row: id}}]."""

    def __init__(self, batches, path):
        self.batches, self.path = batches, path

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, step):
        ids = {
            kind: {
                row: share.order[index]["id"]
                for row, index in zip(share.rows, share.indices(step), strict=True)
            }
            for kind, share in self.batches.shares.items()
        }
        with open(self.path, "a") as file:
            file.write(json.dumps([step, jax.process_count(), ids]) + "\n")
        return self.batches[step]


def make_batches(config, paths, sharding):
    """As recipe_data.make_batches, of scenes."""
    from dav.data import loader, pipeline

    batches = pipeline.make_batches(
        {kind: [Scenes(kind)] for kind in config.batch},
        config.batch.to_dict(),
        seed=config.seed,
        short_side_px=config.train_short_side_px,
        crop_px=config.crop_px,
        rows={kind: loader.local_rows(sharding, n) for kind, n in config.batch.items()},
    )
    return Noted(batches, paths.workdir.with_suffix(f".read-{jax.process_index()}"))


def config_of(*options):
    """The config of such a run."""
    from dav.main import parse
    from dav.models.depth_anything import SIZES, Architecture

    SIZES["tiny"] = Architecture(16, 4, 1, (0, 1, 2, 3), 8, (4, 8, 12, 16), position_grid=3)
    recipe = () if any(one.startswith("--config=") for one in options) else (TEACHER,)
    return parse(["dav", *recipe, *OPTIONS, *options])[0]


def main(port, process, processes, devices, workdir, *options):
    """Trains; returns the exit code."""
    from dav import folders, recipe_data, train
    from dav.main import carry_out, quieten

    quieten()
    jax.config.update("jax_num_cpu_devices", int(devices))
    if int(processes) > 1:
        jax.distributed.initialize(
            f"127.0.0.1:{port}", int(processes), int(process), heartbeat_timeout_seconds=10
        )
    recipe_data.make_batches = make_batches
    config = config_of(*options)
    paths = folders.make_paths(config, Path(workdir))
    return carry_out(sys.argv, __doc__, lambda: train.train(config, paths))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
