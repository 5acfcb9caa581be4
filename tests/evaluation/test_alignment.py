"""Scale and shift by least squares in disparity or depth, ratio of medians, none; clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import random_scene, slow_fit

from dav.evaluation.alignment import FLOOR, aligned_depth, fit, fit_scale_and_shift

LIMITS = (1e-3, 80.0)


def pixels(seed):
    prediction, depth_m, valid = random_scene(seed)
    return prediction[valid].astype(np.float64), depth_m[valid].astype(np.float64)


@pytest.mark.parametrize("offset", [0.0, -10.0, 1000.0])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_fit_equals_general_least_squares(size, offset):
    rng = np.random.default_rng(0)
    x = size * (rng.random(500) + offset)
    y = rng.random(500) - 3 * (x / size - offset)
    found = fit_scale_and_shift(x, y)
    np.testing.assert_allclose(found, slow_fit(x, y), rtol=1e-7)


def test_a_line_is_found_exactly():
    x = np.arange(12.0)
    np.testing.assert_allclose(fit_scale_and_shift(x, 0.25 * x - 2), [0.25, -2], rtol=1e-14)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1000.7])
def test_a_constant_has_nothing_to_fit_and_becomes_the_mean(value):
    """The determinant of the normal equations is 0 there, or rounding."""
    y = np.random.default_rng(1).random(300)
    scale, shift = fit_scale_and_shift(np.full(300, value), y)
    assert scale == 0 and shift == y.mean()


def test_a_single_pixel_is_met_by_the_shift_alone():
    assert fit_scale_and_shift(np.array([3.0]), np.array([0.2])) == (0.0, 0.2)


@pytest.mark.parametrize("seed", range(3))
def test_in_disparity_it_is_the_fit_against_inverse_depth(seed):
    x, depth = pixels(seed)
    scale, shift = slow_fit(x, 1 / depth)
    expected = 1 / np.maximum(scale * x + shift, 1 / 80)
    found = aligned_depth(x, fit(x, depth, "lstsq_disparity"), LIMITS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_in_depth_it_is_the_fit_against_depth(seed):
    x, depth = pixels(seed)
    scale, shift = slow_fit(1 / x, depth)
    expected = np.clip(scale / x + shift, *LIMITS)
    found = aligned_depth(x, fit(x, depth, "lstsq_depth"), LIMITS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_median_is_the_ratio_of_medians_of_depth():
    x, depth = np.array([1.0, 0.5, 0.25]), np.array([3.0, 4.0, 50.0])
    found = aligned_depth(x, fit(x, depth, "median"), LIMITS)
    np.testing.assert_allclose(found, [2.0, 4.0, 8.0])  # depths 1, 2, 4; medians 2 and 4


def test_metric_maps_are_depth_and_may_stand_as_they_are():
    depth = np.array([2.0, 5.0, 90.0])
    none = fit(depth, depth, "none", is_metric=True)
    np.testing.assert_array_equal(aligned_depth(depth, none, LIMITS), [2, 5, 80])
    twice = fit(2 * depth, depth, "lstsq_disparity", is_metric=True)
    np.testing.assert_allclose(aligned_depth(2 * depth, twice, (1e-3, 1e3)), depth)


def test_relative_maps_need_an_alignment():
    with pytest.raises(ValueError, match="none"):
        fit(np.ones(3), np.ones(3), "none")


@pytest.mark.parametrize("cap_m", [10.0, 80.0])
def test_disparity_that_comes_out_negative_is_exactly_the_cap(cap_m):
    """The clip stands after the fit: the fit itself does not know of it."""
    x, depth = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.5, 1 / 3])
    found = aligned_depth(
        np.array([1.0, -9.0, 0.0]), fit(x, depth, "lstsq_disparity"), (0.1, cap_m)
    )
    np.testing.assert_allclose(found, [1, cap_m, cap_m], rtol=1e-12)


@pytest.mark.parametrize("how", ["lstsq_depth", "median"])
def test_where_a_disparity_of_zero_must_be_inverted_it_counts_as_a_share_of_the_largest(how):
    x, depth = np.array([0.0, 1.0, 2.0]), np.array([9.0, 2.0, 1.0])
    raised = np.array([2 * FLOOR, 1.0, 2.0])
    found, expected = (aligned_depth(one, fit(one, depth, how), LIMITS) for one in (x, raised))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("how", ["lstsq_disparity", "lstsq_depth", "median"])
def test_a_map_of_zeros_is_a_constant(how):
    depth = np.array([1.0, 2.0, 4.0])
    middle = {"lstsq_disparity": 1 / np.mean(1 / depth), "lstsq_depth": depth.mean(), "median": 2}
    found = aligned_depth(np.zeros(3), fit(np.zeros(3), depth, how), LIMITS)
    np.testing.assert_allclose(found, middle[how])


@pytest.mark.parametrize("zeros", [6, 9])
def test_a_metric_map_that_is_0_at_its_median_has_a_ratio_of_medians(zeros):
    x, depth = np.r_[np.zeros(zeros), np.full(9 - zeros, 4.0)], np.full(9, 2.0)
    found = aligned_depth(x, fit(x, depth, "median", is_metric=True), LIMITS)
    np.testing.assert_allclose(found, np.where(x > 0, LIMITS[1], 2.0))
    near = np.array([0.01, 3.0, 6.0])  # where no value is below the floor it is not there
    found = aligned_depth(near, fit(near, depth[:3], "median", is_metric=True), (1e-9, 80.0))
    np.testing.assert_allclose(found, near * 2 / 3)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.sampled_from(["lstsq_disparity"]))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_scale_and_shift_of_the_prediction_change_nothing(scale, shift, how):
    x, depth = pixels(4)
    moved = scale * x + shift
    plain = aligned_depth(x, fit(x, depth, how), LIMITS)
    np.testing.assert_allclose(
        aligned_depth(moved, fit(moved, depth, how), LIMITS), plain, rtol=1e-7
    )


@given(st.floats(1e-3, 1e3), st.sampled_from(["lstsq_depth", "median"]))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_scale_of_the_prediction_changes_nothing(scale, how):
    x, depth = pixels(5)
    plain = aligned_depth(x, fit(x, depth, how), LIMITS)
    moved = aligned_depth(scale * x, fit(scale * x, depth, how), LIMITS)
    np.testing.assert_allclose(moved, plain, rtol=1e-9)
