"""The step written plainly in PyTorch, benchmarks/plain_student.py, against dav's."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav import recipe, recipe_network, recipe_update
from dav import step as steps
from dav.main import parse
from dav.models.depth_anything import SIZES, DepthAnything
from dav.weights.load import Weights
from dav.weights.save import save_transformers

ROOT = Path(__file__).parent.parent
STEPS = 2
# The crop is the position table's own grid: frameworks resize positions differently.
SMALL = dataclasses.replace(SIZES["mini"], blocks=4, taps=(0, 1, 2, 3), position_grid=7)
CROP_PX = (98, 98)


@pytest.fixture(scope="module")
def plain():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    jax.config.update("jax_disable_most_optimizations", True)  # two thirds of the time
    yield benchmark("plain_student")
    jax.config.update("jax_disable_most_optimizations", False)


def benchmark(name):
    """A module of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
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


def noise(rng, shape):
    return rng.standard_normal(shape).astype(np.float32)


def random_params(rng):
    """Weights that leave the activations of each layer at about one."""
    shapes = jax.eval_shape(
        DepthAnything(SMALL).init, jax.random.key(0), np.zeros((1, *CROP_PX, 3), np.float32)
    )["params"]

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return noise(rng, leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])).astype(np.float32)
        return 0.02 * noise(rng, leaf.shape) + np.float32(name.startswith("scale"))

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    params["decoder"]["output_3"]["bias"] += 1
    return params


def write_folders(root, params, frozen):
    """Folders of transformers with the student's weights, and with the frozen encoder's."""
    for name, encoder in (("student", params["encoder"]), ("frozen", frozen)):
        save_transformers(root / name, Weights(params | {"encoder": encoder}, SMALL, name))
    return root / "student", root / "frozen"


def test_steps_equal_dav_on_the_same_weights_and_views(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", SMALL)
    config, rng = student_config(), np.random.default_rng(0)
    params = random_params(rng)
    # Near enough to the student's own that the margin leaves some tokens out and not others.
    frozen = jax.tree.map(lambda x: x + 0.33 * x.std() * noise(rng, x.shape), params["encoder"])
    settings = {"margin": config.objective.margin}
    student, other = (
        plain.load(folder, config.optimizer.to_dict(), config.steps, **settings)
        for folder in write_folders(tmp_path, params, frozen)
    )
    student.frozen.load_state_dict(other.frozen.state_dict())
    masks = np.zeros((4, *CROP_PX), bool)
    masks[1, 10:50, 20:90] = masks[2, 40:60, 5:30] = True
    batch = {
        "labelled": make_batch(rng, 2, [np.ones((2, *CROP_PX), bool)]),
        "unlabelled": make_batch(rng, 4, [~masks, np.roll(masks, -1, 0)]),
    }
    images = batch["unlabelled"]["image"].astype(np.float32) / 255
    images = np.where(masks[..., None], np.roll(images, 1, 0), images)
    monkeypatch.setattr(steps, "strong_view", lambda *_, **__: (jnp.asarray(images), masks))
    update = recipe_update.make_update(config)
    model = recipe_network.make_model(config)
    state = steps.state_of(jax.tree.map(jnp.asarray, params), update)
    step = jax.jit(recipe.make_step(config, model, update))
    tensors = plain.to_tensors(batch, "cpu")
    shown = (
        plain.torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
        plain.torch.from_numpy(masks),
    )
    for number in range(STEPS):
        state, metrics = step(state, frozen, batch)
        found = plain.update(student, tensors, *shown)
        assert 0 < metrics["tokens_kept"] < 1
        for name, value in found.items():
            error = abs(float(value) / float(metrics[name]) - 1)
            print(f"step {number} {name:<16} {float(value):.6f} differs by {error:.0e}")
            # Later a median may be another pixel's by a rounding, and its gradient with it.
            limit = 1e-4 if name != "grad_norm" else 2e-2 if number else 1e-3
            assert error < limit, (number, name)


def test_the_share_of_waiting_is_of_the_time_of_the_second_half():
    benchmark("train_step_runtimes")  # which the other imports from its own folder
    rows = [
        {"images_per_s": 1.0, "data_wait": 0.9},
        {"images_per_s": 1.0, "data_wait": 0.9},
        {"images_per_s": 2.0, "data_wait": 0.5},
        {"images_per_s": 6.0, "data_wait": 0.0},
    ]
    share = benchmark("train_step").waited_share(rows)
    assert share == pytest.approx(0.25 / (1 / 2 + 1 / 6))
