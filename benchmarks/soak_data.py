"""What benchmarks/soak.py works on, and what its processes leave in their folders."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

MANY = "folder/many"  # the data set of many shards
IMAGES, PER_SHARD = 120_000, 64  # more than there is time for
SIZES_PX = ((112, 150), (150, 112), (112, 168), (120, 120))  # four shapes of the network
OPTIONS = (
    "--config.steps=1000000",  # more than there is time for
    "--config.crop_px=(56, 70)",
    "--config.train_short_side_px=56",
    "--config.batch.labelled=2",
    "--config.batch.unlabelled=4",
    "--config.label_short_side_px=112",
)
UNFINISHED = ("*.tmp", "*.unfinished", "*.damaged*", "*orbax-checkpoint-tmp*", "*.claim")


def prepare(folder, root):
    """Data sets, the teacher's weights, and the labels that training needs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "teacher.safetensors")
    for job in ("prepare", "label"):
        with dav(folder, root, f"--job={job}", f"--workdir={folder / 'run'}", log=job) as process:
            if process.wait():
                raise SystemExit(log_of(folder, job))
    write_photographs(folder / "raw", root / "dav" / "sample" / "photos")
    prepare_many(folder / "data", folder / "raw")


def write_weights(path):
    """Random ones of the mini network, in the official layout."""
    import jax

    from dav.models.depth_anything import DepthAnything, architecture_of
    from dav.weights.load import Weights
    from dav.weights.save import save_official

    architecture = architecture_of("mini", 1)
    image = np.zeros((1, 56, 70, 3), np.float32)
    params = jax.jit(DepthAnything(architecture).init)(jax.random.key(0), image)["params"]
    save_official(path, Weights(jax.tree.map(np.asarray, params), architecture, "random"))


def write_photographs(folder, photographs):
    """IMAGES parts of the sample's photographs, no two alike."""
    folder.mkdir()
    wholes = [cv2.imread(str(path)) for path in sorted(photographs.glob("*.jpg"))]
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        whole, (height, width) = wholes[number % len(wholes)], SIZES_PX[number % len(SIZES_PX)]
        top, left = (
            int(rng.integers(have - want + 1))
            for have, want in zip(whole.shape, (height, width), strict=False)
        )
        part = whole[top : top + height, left : left + width]
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), part)


def prepare_many(data, raw):
    """MANY in shards of PER_SHARD images, of which dav itself would make larger ones."""
    from dav.data import catalog, prepare

    builder = dataclasses.replace(catalog.builder_of(MANY), items_per_shard=PER_SHARD)
    with mock.patch.object(catalog, "builder_of", lambda name: builder):
        prepare.prepare(data, MANY, raw=raw)


@contextlib.contextmanager
def dav(folder, root, *options, log, environment=None):
    """A running `python -m dav.main` of the student's recipe; it has ended on leaving."""
    command = [
        *(sys.executable, "-m", "dav.main", f"--config={root / 'configs' / 'student.py'}"),
        f"--config.data.root={folder / 'data'}",
        f"--config.teacher_weights={folder / 'teacher.safetensors'}",
        *(*OPTIONS, *options),
    ]
    with open(folder / f"{log}.log", "w") as said:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def log_of(folder, name):
    """What a process has said."""
    return (folder / f"{name}.log").read_text()


def steps_done(folder):
    """The newest step of which there are figures."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def labels_done(folder):
    """Images of MANY that have labels."""
    finished = (folder / "labelling" / "labels" / MANY / "train" / "manifest").glob("*.json")
    return sum(json.loads(path.read_text())["records"] for path in finished)


def unfinished(folder):
    """Files that no finished or stopped job should leave in its work folder."""
    return sorted(
        str(path.relative_to(folder))
        for workdir in ("run", "labelling")
        for pattern in UNFINISHED
        for path in Path(folder / workdir).rglob(pattern)
    )
