"""One process of a training run on images made up in memory, of a network that compiles quickly.

    python tests/one_of_many.py PORT PROCESS PROCESSES DEVICES WORKDIR RECIPE [--config.KEY=VALUE …]

DEVICES are those of this process. Every batch that it reads is noted in WORKDIR.read-PROCESS. As
long as there is WORKDIR.gate-PROCESS, which holds a step's number, it gets no batch from there on;
with $PAUSE_S every batch takes so many seconds.
The network is two layers, unless --config.model.size is one of dav's own.
"""

import json
import os
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
from flax import linen as nn
from simulated import simulate_devices

OPTIONS = (
    "--config.model.size=plain",
    "--config.batch.labelled=4",
    "--config.crop_px=(28, 42)",
    "--config.train_short_side_px=30",
    "--config.log_every=1",
    "--config.optimizer.ema_decay=0.9",
    "--config.mesh.min_sharded_elements=1000",
)
IMAGES = 20
WIDTH, PATCH_PX = 16, 14


class Encoder(nn.Module):
    """One token a patch: the only feature map of so plain an encoder."""

    @nn.compact
    def __call__(self, images):
        patch = (PATCH_PX, PATCH_PX)
        tokens = nn.gelu(nn.Conv(WIDTH, patch, strides=patch, name="patches")(images))
        return [tokens.reshape(len(images), -1, WIDTH)]


class Plain(nn.Module):
    """Each patch's disparity is a linear function of its token. As DepthAnything's, the answer is
    (disparity [B, H, W], tokens [B, N, D])."""

    def setup(self):
        self.encoder = Encoder()
        self.decoder = nn.Dense(PATCH_PX**2)

    def __call__(self, images):
        tokens = self.encoder(images)[-1]
        grid = (images.shape[1] // PATCH_PX, images.shape[2] // PATCH_PX)
        maps = self.decoder(tokens).reshape(-1, *grid, PATCH_PX, PATCH_PX)
        return nn.relu(maps.swapaxes(2, 3).reshape(images.shape[:3])), tokens


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
    """Batches that write down what is read of them: [step, processes, {kind: {row: id}}], and wait
    at the gate."""

    def __init__(self, batches, path, gate):
        self.batches, self.path, self.gate = batches, path, gate

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
        time.sleep(float(os.environ.get("PAUSE_S", 0)))
        while self.gate.exists() and step >= int(self.gate.read_text()):
            time.sleep(0.01)
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
    read, gate = (f"{paths.workdir}.{name}-{jax.process_index()}" for name in ("read", "gate"))
    return Noted(batches, read, Path(gate))


def config_of(recipe, *options):
    """The config of such a run."""
    from dav import recipe_network
    from dav.main import parse
    from dav.models.depth_anything import SIZES, Architecture

    SIZES["plain"] = Architecture(WIDTH, 4, 1, (0, 1, 2, 3), 8, (4, 8, 12, 16), position_grid=3)
    config = parse(["dav", f"--config=configs/{recipe}.py", *OPTIONS, *options])[0]
    if config.model.size == "plain":
        recipe_network.make_model = lambda config: Plain()
        recipe_network.make_frozen_encoder = lambda config: Encoder()
    return config


def main(port, process, processes, devices, workdir, recipe, *options):
    """Trains; returns the exit code."""
    from dav import folders, recipe_data, train
    from dav.main import carry_out, quieten
    from dav.runtime.processes import start

    quieten()
    simulate_devices(int(devices))
    start(f"127.0.0.1:{port}", int(process), int(processes))
    recipe_data.make_batches = make_batches
    config = config_of(recipe, *options)
    paths = folders.make_paths(config, Path(workdir))
    return carry_out(sys.argv, __doc__, lambda: train.train(config, paths))


if __name__ == "__main__":
    from dav.runtime.processes import leave

    code = main(*sys.argv[1:])
    leave(code)
    sys.exit(code)
