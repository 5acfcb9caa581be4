"""The scale-invariant log loss against the formula in NumPy, and its degenerate maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.objectives.scale_invariant_log import MIN_PREDICTED_M, scale_invariant_log

PUBLISHED = [(0.5, 1.0), (0.85, 10.0)]  # Depth Anything V2; ZoeDepth
OPTIONS = ("variance_weight", "factor")

loss_and_count = jax.jit(scale_invariant_log, static_argnames=OPTIONS)
value_and_gradient = jax.jit(
    jax.value_and_grad(lambda *maps, **options: scale_invariant_log(*maps, **options)[0]),
    static_argnames=OPTIONS,
)
v2 = {"variance_weight": 0.5}
steady = settings(deadline=None, derandomize=True, max_examples=50)


def random_maps(seed, shape=(3, 9, 11)):
    rng = np.random.default_rng(seed)
    predicted_m, depth_m = np.exp(rng.uniform(np.log(0.1), np.log(80), (2, *shape)))
    return predicted_m.astype(np.float32), depth_m.astype(np.float32), rng.random(shape) < 0.6


@pytest.mark.parametrize(("weight", "factor"), [*PUBLISHED, (0.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("seed", range(2))
def test_loss_equals_the_slow_reference(seed, weight, factor):
    maps = random_maps(seed)
    total, count = loss_and_count(*maps, variance_weight=weight, factor=factor)
    expected, images = slow.scale_invariant_log(*maps, variance_weight=weight, factor=factor)
    assert count == images == 3 and total.dtype == count.dtype == jnp.float32
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_a_prediction_twice_too_far_costs_its_logarithm_less_the_weight():
    _, depth_m, valid = random_maps(0)
    total, _ = loss_and_count(2 * depth_m, depth_m, valid, variance_weight=0.85, factor=10.0)
    np.testing.assert_allclose(total, 3 * 10 * np.log(2) * np.sqrt(0.15), rtol=1e-5)


@given(st.floats(-80, 80), st.sampled_from([0.5, 0.85, 1.0]))
@steady
def test_a_common_factor_of_both_maps_changes_nothing(exponent, weight):
    """1e-30 to 1e30, as far as the floor of the prediction lets it."""
    predicted_m, depth_m, valid = random_maps(1)
    factor = np.float32(max(np.exp(exponent), 1e-5))
    plain, _ = loss_and_count(predicted_m, depth_m, valid, variance_weight=weight)
    found, _ = loss_and_count(factor * predicted_m, factor * depth_m, valid, variance_weight=weight)
    np.testing.assert_allclose(found, plain, rtol=2e-5)


@given(st.floats(-10, 80))
@steady
def test_at_weight_one_a_factor_of_the_prediction_costs_nothing(exponent):
    predicted_m, depth_m, valid = random_maps(2)
    factor = np.float32(np.exp(exponent))
    plain, _ = loss_and_count(predicted_m, depth_m, valid, variance_weight=1.0)
    found, _ = loss_and_count(factor * predicted_m, depth_m, valid, variance_weight=1.0)
    np.testing.assert_allclose(found, plain, rtol=2e-5)


def test_loss_and_gradient_are_zero_at_equality():
    _, depth_m, valid = random_maps(3)
    loss, grad = value_and_gradient(depth_m, depth_m, valid, **v2)
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize(("weight", "factor"), PUBLISHED)
def test_gradient_equals_a_difference_quotient_of_the_slow_reference(weight, factor):
    predicted_m, depth_m, valid = random_maps(4)
    options = {"variance_weight": weight, "factor": factor}
    _, grad = value_and_gradient(predicted_m, depth_m, valid, **options)
    direction = np.random.default_rng(5).normal(size=depth_m.shape) * predicted_m
    ahead, behind = (
        slow.scale_invariant_log(predicted_m + s, depth_m, valid, **options)[0]
        for s in (1e-6 * direction, -1e-6 * direction)
    )
    np.testing.assert_allclose(np.sum(grad * direction), (ahead - behind) / 2e-6, rtol=1e-4)


def test_one_valid_pixel_has_its_error_and_a_finite_gradient():
    predicted_m, depth_m, _ = random_maps(6)
    valid = np.zeros_like(depth_m, bool)
    valid[:, 2, 3] = True
    loss, grad = value_and_gradient(predicted_m, depth_m, valid, **v2)
    g = np.log(predicted_m[valid]) - np.log(depth_m[valid])
    np.testing.assert_allclose(loss, np.sum(np.abs(g)) * np.sqrt(0.5), rtol=1e-5)
    assert np.isfinite(grad).all() and np.asarray(grad)[valid].all()
    # At weight 1 one pixel has no variance, and so no direction.
    loss, grad = value_and_gradient(predicted_m, depth_m, valid, variance_weight=1.0)
    assert loss == 0 and not grad.any()


def test_an_image_without_valid_pixels_is_not_counted():
    predicted_m, depth_m, valid = random_maps(7)
    valid[1] = False
    predicted_m[1] = np.nan
    loss, grad = value_and_gradient(predicted_m, depth_m, valid, **v2)
    rest = [x[[0, 2]] for x in (predicted_m, depth_m, valid)]
    np.testing.assert_allclose(loss, loss_and_count(*rest, **v2)[0], rtol=1e-6)
    assert loss_and_count(predicted_m, depth_m, valid, **v2)[1] == 2 and not grad[1].any()


def test_a_prediction_of_nothing_is_taken_as_the_floor():
    predicted_m, depth_m, valid = random_maps(8)
    floored = predicted_m.copy()
    predicted_m[:, 2], floored[:, 2] = 0.0, MIN_PREDICTED_M
    loss, grad = value_and_gradient(predicted_m, depth_m, valid, **v2)
    assert loss == loss_and_count(floored, depth_m, valid, **v2)[0]
    assert np.isfinite(grad).all() and not grad[:, 2].any()


@pytest.mark.parametrize("junk", [0.0, -1.0, 1e30, np.inf, np.nan])
@pytest.mark.parametrize("spoiled", [0, 1])
def test_invalid_pixels_change_neither_loss_nor_gradient(spoiled, junk):
    maps = list(random_maps(9))
    clean = value_and_gradient(*maps, **v2)
    maps[spoiled] = np.where(maps[2], maps[spoiled], np.float32(junk))
    loss, grad = value_and_gradient(*maps, **v2)
    assert loss == clean[0]
    np.testing.assert_array_equal(grad, clean[1])
    assert not np.asarray(grad)[~maps[2]].any()


@pytest.mark.parametrize(
    ("spoiled", "junk"), [(0, np.nan), (0, np.inf), (1, np.nan), (1, np.inf), (1, 0.0), (1, -1.0)]
)
def test_one_value_without_a_logarithm_in_a_valid_pixel_shows(spoiled, junk):
    maps = random_maps(10)
    maps[spoiled][0][tuple(np.argwhere(maps[2][0])[0])] = junk
    assert not np.isfinite(loss_and_count(*maps, **v2)[0])


def test_sums_and_counts_add_up_over_parts_of_the_batch():
    maps = random_maps(11)
    maps[2][1] = False
    parts = [loss_and_count(*(x[i : i + 1] for x in maps), **v2) for i in range(3)]
    total, count = loss_and_count(*maps, **v2)
    assert count == sum(count for _, count in parts) == 2
    np.testing.assert_allclose(total, sum(total for total, _ in parts), rtol=1e-6)
