"""Gradient matching against the formula in NumPy, and its degenerate maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.objectives.gradient_matching import gradient_matching

loss_and_count = jax.jit(gradient_matching, static_argnames="scales")
value_and_gradient = jax.jit(jax.value_and_grad(lambda *maps: gradient_matching(*maps)[0]))

# Exact in float32, as the maps below: what remains is the error of the loss itself.
scales = st.builds(lambda a, b: a / 2**b, st.integers(1, 64), st.integers(0, 6))
shifts = st.integers(-1000, 1000)
steady = settings(deadline=None, derandomize=True, max_examples=50)


def random_maps(seed, shape=(3, 17, 22), share=0.8):
    rng = np.random.default_rng(seed)
    prediction, target = rng.integers(0, 1024, (2, *shape)).astype(np.float32)
    return prediction / 16, target / 1024, rng.random(shape) < share


@pytest.mark.parametrize("share", [0.1, 0.8, 1.0])
@pytest.mark.parametrize("levels", [1, 4])
def test_loss_equals_the_slow_reference(levels, share):
    maps = random_maps(0, share=share)
    total, count = loss_and_count(*maps, scales=levels)
    expected, images = slow.gradient_matching(*maps, scales=levels)
    assert count == images == 3 and total.dtype == count.dtype == jnp.float32
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_one_step_in_the_difference_of_a_small_map():
    """Normalised target −1 −1 1 1, prediction −1 1 −1 1: R = 0 2 −2 0, n = 4 and 2 pixels."""
    target = np.array([[[0.0, 0.0, 1.0, 1.0]]], np.float32)
    prediction = np.array([[[0.0, 1.0, 0.0, 1.0]]], np.float32)
    valid = np.ones_like(target, bool)
    found, _ = loss_and_count(prediction, target, valid, scales=1)
    np.testing.assert_allclose(found, (2 + 4 + 2) / 4, rtol=1e-6)
    found, _ = loss_and_count(prediction, target, valid, scales=2)  # R = 0 −2 of every second
    np.testing.assert_allclose(found, (2 + 4 + 2) / 4 + 2 / 2, rtol=1e-6)


@given(scales, shifts, scales, shifts)
@steady
def test_loss_ignores_scale_and_shift_of_either_map(a, b, c, d):
    prediction, target, valid = random_maps(1)
    plain, _ = loss_and_count(prediction, target, valid)
    moved, _ = loss_and_count(a * prediction + b, c * target + d, valid)
    np.testing.assert_allclose(moved, plain, rtol=1e-5)


@given(scales, shifts)
@steady
def test_loss_is_zero_where_the_prediction_is_the_target_up_to_scale_and_shift(a, b):
    _, target, valid = random_maps(2)
    np.testing.assert_allclose(loss_and_count(a * target + b, target, valid)[0], 0, atol=1e-4)


def test_gradient_equals_a_difference_quotient_of_the_slow_reference():
    prediction, target, valid = random_maps(3)
    rng = np.random.default_rng(4)
    prediction += rng.random(prediction.shape, np.float32) / 32  # no ties, no kinks
    _, grad = value_and_gradient(prediction, target, valid)
    direction = rng.normal(size=prediction.shape)
    step = 1e-6 * direction
    ahead, behind = (
        slow.gradient_matching(prediction + s, target, valid)[0] for s in (step, -step)
    )
    np.testing.assert_allclose(np.sum(grad * direction), (ahead - behind) / 2e-6, rtol=1e-3)


def no_neighbours(prediction, target, valid):
    row, column = np.indices(valid.shape[1:])
    return prediction, target, np.broadcast_to((row % 16 == 8) & (column % 16 == 3), valid.shape)


def constant_prediction(prediction, target, valid):
    return np.full_like(prediction, 88.1), target, valid


def constant_target(prediction, target, valid):
    return prediction, np.full_like(target, 0.1), valid


def all_invalid(prediction, target, valid):
    return prediction, target, np.zeros_like(valid)


CASES = (no_neighbours, constant_prediction, constant_target, all_invalid)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_loss_and_gradient_of_degenerate_maps(case):
    maps = case(*random_maps(5))
    loss, grad = value_and_gradient(*maps)
    count = loss_and_count(*maps)[1]
    assert np.isfinite(loss) and np.isfinite(grad).all()
    assert count == (3 if case is constant_prediction else 0)
    assert bool(loss) == bool(grad.any()) == bool(count)


@given(st.integers(-100, 100), st.integers(-100, 100))
@steady
def test_powers_of_two_of_any_size_change_no_bit_of_the_loss(a, b):
    prediction, target, valid = random_maps(6)
    loss, grad = value_and_gradient(prediction, target, valid)
    found = value_and_gradient(prediction * np.float32(2.0**a), target * np.float32(2.0**b), valid)
    assert found[0] == loss
    np.testing.assert_allclose(np.asarray(found[1]) * np.float32(2.0**a), grad, atol=1e-7)


@pytest.mark.parametrize("junk", [-1e9, np.inf, np.nan])
@pytest.mark.parametrize("spoiled", ["prediction", "target"])
def test_invalid_pixels_change_neither_loss_nor_gradient(spoiled, junk):
    prediction, target, valid = random_maps(7)
    clean = value_and_gradient(prediction, target, valid)
    maps = {"prediction": prediction, "target": target}
    maps[spoiled] = np.where(valid, maps[spoiled], np.float32(junk))
    loss, grad = value_and_gradient(maps["prediction"], maps["target"], valid)
    assert loss == clean[0]
    np.testing.assert_array_equal(grad, clean[1])
    assert not np.asarray(grad)[~valid].any()


@pytest.mark.parametrize("junk", [np.inf, np.nan])
@pytest.mark.parametrize("spoiled", [0, 1])
def test_one_value_that_is_not_finite_in_a_valid_pixel_shows(spoiled, junk):
    maps = random_maps(8)
    maps[1][1] = 0.5  # no target: not counted, but not a place to hide in
    for image in range(3):
        found = [x.copy() for x in maps]
        found[spoiled][image][tuple(np.argwhere(maps[2][image])[0])] = junk
        assert not np.isfinite(loss_and_count(*found)[0])


def test_a_value_that_is_not_finite_shows_without_neighbours():
    prediction, target, valid = random_maps(10)
    valid[0, 4:9, 4:9] = False
    valid[0, 7, 7] = True
    prediction[0, 7, 7] = np.inf
    assert not np.isfinite(loss_and_count(prediction, target, valid)[0])


def test_sums_and_counts_add_up_over_parts_of_the_batch():
    maps = random_maps(9)
    maps[2][1] = False
    parts = [loss_and_count(*(x[i : i + 1] for x in maps)) for i in range(3)]
    total, count = loss_and_count(*maps)
    assert count == sum(count for _, count in parts) == 2
    np.testing.assert_allclose(total, sum(total for total, _ in parts), rtol=1e-6)
