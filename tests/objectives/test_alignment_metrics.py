"""Least-squares alignment in disparity and the metrics behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.objectives.alignment import align_to_depth, fit_scale_and_shift
from dav.objectives.metrics import abs_rel, delta1

CAP_M = 80.0


fit = jax.jit(fit_scale_and_shift)
align = jax.jit(align_to_depth, static_argnames="max_depth_m")


@jax.jit
def measure(disparity, depth_m, valid):
    aligned_m = align_to_depth(disparity, depth_m, valid, max_depth_m=CAP_M)
    return abs_rel(aligned_m, depth_m, valid), delta1(aligned_m, depth_m, valid)


def random_scene(seed, shape=(3, 9, 11)):
    """A noisy disparity in steps of 1/256 with the depth it means; a fifth is not measured."""
    rng = np.random.default_rng(seed)
    disparity = rng.integers(16, 512, shape) / 256
    depth_m = 1 / (0.5 * disparity + 0.1 + 0.1 * rng.random(shape))
    return disparity.astype(np.float32), depth_m.astype(np.float32), rng.random(shape) < 0.8


def slow_fit(x, y):
    """Least squares of one image's valid pixels, in float64."""
    columns = np.stack([x.astype(np.float64), np.ones(x.size)], axis=1)
    return np.linalg.lstsq(columns, y.astype(np.float64), rcond=None)[0]


def slow_metrics(disparity, depth_m, valid):
    """AbsRel and delta1 of one image, in float64."""
    x, depth_m = disparity[valid].astype(np.float64), depth_m[valid].astype(np.float64)
    scale, shift = slow_fit(x, 1 / depth_m)
    predicted_m = 1 / np.maximum(scale * x + shift, 1 / CAP_M)
    ratio = np.maximum(predicted_m / depth_m, depth_m / predicted_m)
    return np.mean(np.abs(predicted_m - depth_m) / depth_m), np.mean(ratio < 1.25)


@pytest.mark.parametrize("offset", [0.0, -10.0, 1000.0])
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_fit_equals_lstsq_in_float64(size, offset):
    rng = np.random.default_rng(0)
    x = (size * (rng.random((4, 9, 11)) + offset)).astype(np.float32)
    y = (-3 * (x / size - offset) + rng.random((4, 9, 11)) + 2).astype(np.float32)
    valid = rng.random((4, 9, 11)) < 0.7
    scale, shift = fit(x, y, valid)
    expected = [slow_fit(x[i][valid[i]], y[i][valid[i]]) for i in range(4)]
    np.testing.assert_allclose(np.stack([scale, shift], axis=1), expected, rtol=1e-5)


def test_fit_recovers_an_exact_line():
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    scale, shift = fit(x, 0.25 * x - 2, np.ones((1, 3, 4), bool))
    np.testing.assert_allclose([scale[0], shift[0]], [0.25, -2], rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1000.7])
def test_a_constant_prediction_gets_scale_zero_and_the_mean_as_shift(value):
    rng = np.random.default_rng(1)
    y, valid = rng.random((2, 9, 11), np.float32), rng.random((2, 9, 11)) < 0.7
    scale, shift = fit(np.full_like(y, value), y, valid)
    np.testing.assert_array_equal(scale, 0)
    np.testing.assert_allclose(shift, [y[i][valid[i]].mean() for i in range(2)], rtol=1e-6)


def test_one_valid_pixel_is_met_by_the_shift_alone():
    x, y = (np.random.default_rng(k).random((1, 3, 3), np.float32) for k in (2, 3))
    valid = np.arange(9).reshape(1, 3, 3) == 4
    scale, shift = fit(x, y, valid)
    assert scale[0] == 0
    np.testing.assert_allclose(shift[0], y[0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_the_slow_reference(seed):
    scene = random_scene(seed)
    expected = [slow_metrics(*(x[i] for x in scene)) for i in range(3)]
    np.testing.assert_allclose(np.stack(measure(*scene), axis=1), expected, rtol=1e-5)


@given(st.integers(1, 64), st.integers(0, 6), st.integers(-20, 20))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_metrics_ignore_scale_and_shift_of_the_prediction(numerator, halvings, shift):
    disparity, depth_m, valid = random_scene(5)
    moved = disparity * (numerator / 2**halvings) + shift
    plain = measure(disparity, depth_m, valid)
    found = measure(moved.astype(np.float32), depth_m, valid)
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1], plain[1])


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e9, 0.0, -1.0])
@pytest.mark.parametrize("spoiled", ["disparity", "depth_m"])
def test_pixels_outside_the_mask_change_nothing(spoiled, junk):
    disparity, depth_m, valid = random_scene(6)
    plain = measure(disparity, depth_m, valid)
    if spoiled == "disparity":
        disparity = np.where(valid, disparity, np.float32(junk))
    else:
        depth_m = np.where(valid, depth_m, np.float32(junk))
    np.testing.assert_array_equal(measure(disparity, depth_m, valid), plain)


def test_pixels_outside_the_mask_do_not_move_the_depth_inside():
    disparity, depth_m, valid = random_scene(7)
    plain = align(disparity, depth_m, valid, max_depth_m=CAP_M)
    spoiled = (np.where(valid, x, np.float32(np.nan)) for x in (disparity, depth_m))
    found = align(*spoiled, valid, max_depth_m=CAP_M)
    np.testing.assert_array_equal(np.asarray(found)[valid], np.asarray(plain)[valid])


@pytest.mark.parametrize("cap_m", [10.0, 20.0, 50.0, 80.0])
def test_negative_aligned_disparity_becomes_exactly_the_cap(cap_m):
    disparity = np.array([[[1.0, 2.0, 3.0, -9.0]]], np.float32)
    depth_m = np.array([[[1.0, 0.5, 1 / 3, 1.0]]], np.float32)
    valid = np.array([[[True, True, True, False]]])
    aligned_m = align_to_depth(disparity, depth_m, valid, max_depth_m=cap_m)
    assert aligned_m[0, 0, 3] == cap_m
    np.testing.assert_allclose(aligned_m[0, 0, :3], depth_m[0, 0, :3], rtol=1e-5)


def test_aligned_depth_never_exceeds_the_cap():
    rng = np.random.default_rng(8)
    disparity = rng.normal(size=(2, 9, 11)).astype(np.float32)
    depth_m = rng.uniform(1, 60, (2, 9, 11)).astype(np.float32)
    aligned_m = align(disparity, depth_m, depth_m > 0, max_depth_m=10.0)
    assert (aligned_m > 0).all() and (aligned_m <= 10).all() and (aligned_m == 10).any()


def test_abs_rel_by_hand():
    depth_m = jnp.array([[[1.0, 2.0, 4.0, 5.0]]])
    predicted_m = jnp.array([[[1.5, 1.0, 4.0, 50.0]]])
    valid = jnp.array([[[True, True, True, False]]])
    np.testing.assert_allclose(abs_rel(predicted_m, depth_m, valid), [1 / 3], rtol=1e-6)


def test_delta1_by_hand_is_strict_and_symmetric():
    depth_m = jnp.array([[[4.0, 5.0, 4.0, 4.0, 1.0]]])
    predicted_m = jnp.array([[[5.0, 4.0, 4.5, 3.5, 9.0]]])  # 1.25 either way, then within
    valid = jnp.array([[[True, True, True, True, False]]])
    np.testing.assert_array_equal(delta1(predicted_m, depth_m, valid), [0.5])


def test_metrics_average_each_image_over_its_own_pixels():
    depth_m = jnp.array([[[1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]])
    predicted_m = jnp.array([[[2.0, 1.0, 1.0]], [[2.0, 1.0, 1.0]]])
    valid = jnp.array([[[True, True, False]], [[True, False, False]]])
    np.testing.assert_array_equal(abs_rel(predicted_m, depth_m, valid), [0.5, 1.0])
    np.testing.assert_array_equal(delta1(predicted_m, depth_m, valid), [0.5, 0.0])


def test_metrics_stay_finite_without_valid_pixels():
    disparity, depth_m, valid = random_scene(9)
    np.testing.assert_array_equal(measure(disparity, depth_m, np.zeros_like(valid)), 0)
