"""The step written plainly in PyTorch, benchmarks/plain_student.py, against dav's."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dav import recipe
from dav.main import parse
from dav.models.depth_anything import SIZES
from dav.step import strong_view
from dav.weights.load import Weights
from dav.weights.save import save_transformers

ROOT = Path(__file__).parent.parent
STEPS = 3
# The crop is the position table's own grid: frameworks resize positions differently.
SMALL = dataclasses.replace(SIZES["mini"], blocks=4, taps=(0, 1, 2, 3), position_grid=7)
CROP_PX = (98, 98)


@pytest.fixture(scope="module")
def plain():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    path = ROOT / "benchmarks" / "plain_student.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def student_config():
    config, _, _ = parse(["dav", f"--config={ROOT / 'configs' / 'student.py'}"])
    config.crop_px = CROP_PX
    config.batch.labelled, config.batch.unlabelled = 2, 4
    return config


def make_batch(rng, images, regions):
    """Targets with holes, such that the median of each region [n, H, W] of each image is one
    pixel's: of even counts dav takes the mean of the middle two, PyTorch the lower one."""
    valid = np.zeros((images, *CROP_PX), bool)
    for index in range(images):
        counts = np.zeros(1)
        while not (counts % 2).all():
            valid[index] = rng.random(CROP_PX) < 0.8
            counts = np.array([(valid[index] & region[index]).sum() for region in regions])
            counts[[not region[index].any() for region in regions]] = 1
    return {
        "image": rng.integers(0, 256, (images, *CROP_PX, 3), dtype=np.uint8),
        "disparity": rng.random((images, *CROP_PX), dtype=np.float32),
        "valid": valid,
    }


def write_folders(root, params, frozen):
    """Folders of transformers with the student's weights, and with the frozen encoder's."""
    for name, encoder in (("student", params["encoder"]), ("frozen", frozen)):
        save_transformers(root / name, Weights(params | {"encoder": encoder}, SMALL, name))
    return root / "student", root / "frozen"


def test_steps_equal_dav_on_the_same_weights_and_views(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", SMALL)
    config, rng = student_config(), np.random.default_rng(0)
    trainer = recipe.make_trainer(config)
    state = trainer.init()
    params = jax.device_get(state.params)
    # Near enough to the student's own that the margin leaves some tokens out and not others.
    frozen = jax.tree.map(
        lambda x: x + rng.normal(0, 0.02, x.shape).astype(np.float32), params["encoder"]
    )
    settings = {"margin": config.objective.margin}
    student, other = (
        plain.load(folder, config.optimizer.to_dict(), config.steps, **settings)
        for folder in write_folders(tmp_path, params, frozen)
    )
    student.frozen.load_state_dict(other.frozen.state_dict())
    frozen, view = jax.device_put(frozen), jax.jit(strong_view, static_argnums=(1,))
    labelled = make_batch(rng, 2, [np.ones((2, *CROP_PX), bool)])
    for step in range(STEPS):
        unlabelled = make_batch(rng, 4, [])
        images, masks = jax.device_get(view(unlabelled["image"], config.seed, step))
        assert 0 < np.mean(masks) < 1
        shown = {"image": unlabelled["image"]}
        unlabelled = make_batch(rng, 4, [~masks, np.roll(masks, -1, 0)]) | shown
        batch = {"labelled": labelled, "unlabelled": unlabelled}
        state, metrics = trainer.step(state, frozen, batch)
        images = plain.torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        tensors = plain.to_tensors(batch, "cpu")
        found = plain.update(student, tensors, images, plain.torch.from_numpy(masks))
        assert 0.05 < metrics["tokens_kept"] < 0.95
        for name, value in found.items():
            print(step, name, float(value), float(metrics[name]))
            assert abs(float(value) / float(metrics[name]) - 1) < 1e-4, (step, name)
