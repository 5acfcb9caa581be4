"""The training step of every recipe: its terms, accumulation, averaging, and what it leaves out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_weights import random_weights

from dav import step
from dav.models.depth_anything import Architecture, DepthAnything, make_encoder
from dav.objectives.affine_invariant import affine_invariant
from dav.objectives.gradient_matching import gradient_matching

CROP_PX = (28, 42)
TINY = Architecture(32, 4, 2, (0, 1, 2, 3), 8, (8, 8, 8, 8), position_grid=3)
DECAY = 0.15  # of the running average; less at the first step
# Each program runs a few times only: compiling it well would take far longer than running it.
QUICK = {"xla_backend_optimization_level": 0}
MODEL, ENCODER = DepthAnything(TINY), make_encoder(TINY)
FULL = step.Objective(gradient_weight=2.0)
TERMS = {"labelled", "gradients", "unlabelled", "features"}


def make_part(images, seed):
    rng = np.random.default_rng(seed)
    shape = (images, *CROP_PX)
    ramp = np.linspace(0.2, 1, shape[1], dtype=np.float32)[None, :, None]
    return {
        "image": rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        "disparity": ramp * rng.uniform(0.5, 2, (images, 1, shape[2])).astype(np.float32),
        "valid": rng.random(shape) < 0.8,
    }


BATCH = {"labelled": make_part(4, 0), "unlabelled": make_part(8, 1)}


@functools.cache
def compiled(accumulate):
    """The step with everything in it, and the state before the first."""
    update = step.Update(optax.sgd(1.0), accumulate, ema_decay=DECAY)
    return jax.jit(make_step(FULL, update), compiler_options=QUICK), first_state(update)


def make_step(objective, update):
    return functools.partial(
        step.train_step, model=MODEL, encoder=ENCODER, update=update, seed=0, objective=objective
    )


def first_state(update):
    return step.state_of(jax.tree.map(jnp.asarray, random_weights(TINY, 0).params), update)


@functools.cache
def frozen_params():
    return jax.tree.map(jnp.asarray, random_weights(TINY, 1).params["encoder"])


def take(batch=BATCH, accumulate=1):
    run, state = compiled(accumulate)
    state, metrics = run(state, frozen_params(), batch)
    return state, {name: float(value) for name, value in metrics.items()}


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def test_the_loss_is_the_mean_of_its_terms_and_gradients_belong_to_the_labelled_one():
    _, metrics = take()
    three = metrics["loss_labelled"] + metrics["loss_unlabelled"] + metrics["loss_features"]
    assert metrics["loss"] == pytest.approx((three + 2 * metrics["loss_gradients"]) / 3, rel=1e-6)
    assert {name.removeprefix("loss_") for name in metrics if name.startswith("loss_")} == TERMS
    assert 0 < metrics["tokens_kept"] <= 1
    assert metrics["usable_labelled"] == metrics["usable_unlabelled"] == 1
    groups = metrics["grad_norm_encoder"], metrics["grad_norm_decoder"]
    assert metrics["grad_norm"] == pytest.approx(np.hypot(*groups), rel=1e-6)


def test_the_labelled_terms_are_those_of_the_objectives():
    _, state = compiled(1)
    part = BATCH["labelled"]
    predict = jax.jit(functools.partial(step.predict, model=MODEL), compiler_options=QUICK)
    maps = predict(state.params, part["image"]), part["disparity"], part["valid"]
    _, metrics = take()
    for name, objective in (("labelled", affine_invariant), ("gradients", gradient_matching)):
        total, count = objective(*maps)
        assert count == 4
        assert metrics[f"loss_{name}"] == pytest.approx(float(total / count), rel=1e-5)


@pytest.mark.parametrize(
    ("kinds", "objective", "terms"),
    [
        ({"labelled"}, step.Objective(), {"labelled"}),
        ({"labelled"}, FULL, {"labelled", "gradients"}),
        ({"unlabelled"}, step.Objective(trim=0.1), {"unlabelled", "features"}),
        (
            {"labelled", "unlabelled"},
            step.Objective(align_features=False),
            {"labelled", "unlabelled"},
        ),
    ],
)
def test_every_recipe_has_the_terms_of_its_images(kinds, objective, terms):
    update = step.Update(optax.sgd(1.0))
    batch = {kind: BATCH[kind] for kind in kinds}
    frozen = frozen_params() if "features" in terms else ()
    _, metrics = jax.eval_shape(make_step(objective, update), first_state(update), frozen, batch)
    assert {name.removeprefix("loss_") for name in metrics if name.startswith("loss_")} == terms


def test_a_batch_worked_in_parts_gives_the_same_step():
    """One labelled image has no target, so that the parts have unequal counts."""
    valid = BATCH["labelled"]["valid"].copy()
    valid[1] = False
    batch = BATCH | {"labelled": BATCH["labelled"] | {"valid": valid}}
    (whole, expected), (found, metrics) = take(batch), take(batch, accumulate=2)
    assert expected["usable_labelled"] == 0.75
    assert metrics == pytest.approx(expected, rel=2e-5)
    _, before = compiled(1)
    moved = largest_difference(whole.params, before.params)
    assert largest_difference(found.params, whole.params) < 5e-5 * moved


def test_parts_hold_every_image_once():
    x = np.arange(12).reshape(12, 1)
    parts = np.asarray(step.split({"x": x}, 3)["x"])
    assert parts.shape == (3, 4, 1) and sorted(parts.ravel()) == list(range(12))


def test_the_average_follows_the_parameters():
    run, state = compiled(1)
    expected = state.params
    for number in range(3):
        state, _ = run(state, frozen_params(), BATCH)
        keep = min(DECAY, (1 + number) / (10 + number))
        expected = jax.tree.map(lambda a, b, k=keep: k * a + (1 - k) * b, expected, state.params)
    assert largest_difference(state.ema, expected) < 1e-5
    assert largest_difference(state.ema, state.params) > 1e-3


@pytest.mark.parametrize(("number", "keep"), [(0, 0.1), (8, 0.5), (10**6, 0.999)])
def test_the_average_forgets_its_beginning(number, keep):
    found = step.average({"a": jnp.ones(2)}, {"a": jnp.zeros(2)}, number, 0.999)
    np.testing.assert_allclose(found["a"], keep, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_that_is_not_finite_is_left_out_and_counted(accumulate):
    disparity = BATCH["labelled"]["disparity"].copy()
    valid = BATCH["labelled"]["valid"].copy()
    disparity[2, 5, 5], valid[2, 5, 5] = np.nan, True
    bad = BATCH | {"labelled": BATCH["labelled"] | {"disparity": disparity, "valid": valid}}
    run, before = compiled(accumulate)
    state = before
    for expected in (1, 2):
        state, metrics = run(state, frozen_params(), bad)
        assert not np.isfinite(metrics["loss"])
        assert (metrics["skipped"], metrics["skipped_in_row"]) == (expected, expected)
    for name in ("params", "opt_state", "ema"):
        a, b = (jax.tree.leaves(getattr(s, name)) for s in (before, state))
        assert all((x == y).all() for x, y in zip(a, b, strict=True))
    state, metrics = run(state, frozen_params(), BATCH)
    assert (metrics["skipped"], metrics["skipped_in_row"]) == (2, 0)
    assert state.step == 3 and largest_difference(state.params, before.params) > 0


def test_perturbed_steps_differ_from_one_another_but_not_from_themselves():
    images = BATCH["unlabelled"]["image"]
    view = jax.jit(step.strong_view, static_argnames="apply", compiler_options=QUICK)
    views = [np.asarray(view(images, 0, number)[0]) for number in (0, 0, 1)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (np.asarray(views[0]) != views[2]).mean() > 0.5
    clean, masks = view(images, 0, 0, apply=False)
    np.testing.assert_allclose(clean, images / np.float32(255), atol=1e-7)
    assert not masks.any()
