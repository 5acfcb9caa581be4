"""One image: which pixels count, and what does not matter to its figures."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import random_scene, slow_fit, slow_metrics

from dav.evaluation.scoring import Rules, counted, score

RULES = Rules(max_depth_m=80.0, min_depth_m=1e-3, crop="none", disparity=True)
HOW = "lstsq_disparity"


def figures(prediction, depth_m, valid, rules=RULES, how=HOW):
    mask, reason = counted(depth_m, valid, rules)
    assert not reason
    return score(prediction, depth_m, mask, rules, how=how).figures


@pytest.mark.parametrize("crop", ["none", "garg"])
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_the_slow_way(seed, crop):
    prediction, depth_m, valid = random_scene(seed)
    if crop == "garg":  # of 30×40
        outside = np.ones_like(valid)
        outside[12:29, 1:38] = False
        measured = valid & ~outside
    else:
        measured = valid
    x, g = prediction[measured].astype(float), depth_m[measured].astype(float)
    scale, shift = slow_fit(x, 1 / g)
    expected = slow_metrics(1 / np.maximum(scale * x + shift, 1 / 80), g)
    found = figures(prediction, depth_m, valid, dataclasses.replace(RULES, crop=crop))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-8, abs=1e-8), name


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e9, 0.0, -1.0])
@pytest.mark.parametrize("spoiled", ["prediction", "depth_m"])
def test_pixels_that_do_not_count_change_nothing(spoiled, junk):
    rules = dataclasses.replace(RULES, crop="garg")
    prediction, depth_m, valid = random_scene(6)
    plain = figures(prediction, depth_m, valid, rules)
    mask, _ = counted(depth_m, valid, rules)
    if spoiled == "prediction":
        prediction = np.where(mask, prediction, np.float32(junk))
    else:
        valid_here = valid & mask
        depth_m = np.where(mask, depth_m, np.float32(junk))
        valid = valid_here
    assert figures(prediction, depth_m, valid, rules) == plain


@given(st.floats(0.01, 100), st.floats(-50, 50))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_scale_and_shift_of_the_prediction_change_no_figure(scale, shift):
    prediction, depth_m, valid = random_scene(7)
    moved = scale * prediction.astype(np.float64) + shift
    plain, found = (figures(one, depth_m, valid) for one in (prediction, moved))
    for name in plain:
        assert found[name] == pytest.approx(plain[name], abs=1e-6), name


def test_the_ends_of_the_range_are_outside():
    depth_m = np.array([[1.0, 2.0, 5.0, 10.0, 11.0]], np.float32)
    mask, _ = counted(depth_m, np.ones((1, 5), bool), Rules(10.0, 1.0, "none"))
    np.testing.assert_array_equal(mask, [[False, True, True, False, False]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"valid": np.zeros((30, 40), bool)}, "no valid pixel"),
        ({"depth_m": np.full((30, 40), 90, np.float32)}, "no depth between 0.001 and 80 m"),
        ({"top": True}, r"no valid pixel inside the crop \(garg\)"),
    ],
)
def test_an_image_without_a_pixel_that_counts_says_why(change, reason):
    _, depth_m, valid = random_scene(8)
    depth_m, valid = change.get("depth_m", depth_m), change.get("valid", valid)
    if "top" in change:
        valid = valid & (np.arange(30) < 12)[:, None]
    mask, found = counted(depth_m, valid, dataclasses.replace(RULES, crop="garg"))
    assert not mask.any()
    assert re.match(reason, found)


def test_negative_disparity_is_measured_at_the_cap():
    """Far pixels whose aligned disparity is negative count as 80 m, not as −5 m or 1200."""
    depth_m = np.array([[1.0, 1.0, 2.0, 2.0, 60.0, 60.0]], np.float32)
    prediction = np.array([[10.0, 10.0, 6.0, 6.0, -30.0, 2.0]], np.float32)
    found = figures(prediction, depth_m, depth_m > 0)
    x, g = prediction[0].astype(float), depth_m[0].astype(float)
    scale, shift = slow_fit(x, 1 / g)
    disparity = scale * x + shift
    assert disparity.min() < 0
    predicted = np.where(disparity < 1 / 80, 80, 1 / np.where(disparity > 0, disparity, 1))
    assert found["abs_rel"] == pytest.approx(np.mean(np.abs(predicted - g) / g), rel=1e-9)
    unclipped = np.mean(np.abs(disparity * g - 1))
    assert found["abs_rel_disparity_unclipped"] == pytest.approx(unclipped, rel=1e-9)
    assert unclipped > found["abs_rel_disparity"]


def test_truth_up_to_scale_has_no_cap_and_no_figures_with_a_unit():
    prediction, depth, valid = random_scene(9)
    rules = Rules(None, 1e-3, "none")
    one, other = (figures(prediction, k * depth, valid, rules) for k in (1, 1000))
    assert "rmse" not in one and "sq_rel" not in one
    for name in one:
        assert other[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.parametrize("how", ["lstsq_disparity", "lstsq_depth", "median"])
def test_a_constant_prediction_has_finite_figures(how):
    _, depth_m, valid = random_scene(10)
    found = figures(np.full(valid.shape, 3.0, np.float32), depth_m, valid, how=how)
    assert np.isfinite(list(found.values())).all() and found["abs_rel"] > 0.1
