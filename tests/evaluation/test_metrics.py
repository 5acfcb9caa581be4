"""Metrics against their formulas, computed slowly, and by hand."""

import numpy as np
import pytest
from scenes import slow_metrics

from dav.evaluation.metrics import measure, measure_disparity


@pytest.mark.parametrize("seed", range(5))
def test_every_metric_equals_the_slow_one(seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.01, 80, 700)
    predicted = depth * np.exp(rng.normal(0, 0.3, 700))
    expected = slow_metrics(predicted, depth)
    found = measure(predicted, depth)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name


def test_by_hand():
    found = measure([1.5, 1.0, 4.0], [1.0, 2.0, 4.0])
    assert found["abs_rel"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["sq_rel"] == pytest.approx((0.25 + 0.5) / 3)
    assert found["rmse"] == pytest.approx(np.sqrt(1.25 / 3))
    assert found["delta1"] == pytest.approx(1 / 3)


def test_deltas_are_strict_and_symmetric():
    """1.25 exactly, either way, is outside; so are its powers."""
    found = measure([5.0, 4.0, 4.5, 3.5], [4.0, 5.0, 4.0, 4.0])
    assert found["delta1"] == 0.5 and found["delta2"] == 1
    assert measure([1.5625], [1.0])["delta2"] == 0


def test_a_perfect_prediction():
    found = measure([1.0, 2.0], [1.0, 2.0])
    assert all(found[name] == (1 if name.startswith("delta") else 0) for name in found)


def test_silog_ignores_scale():
    rng = np.random.default_rng(0)
    depth, predicted = rng.uniform(1, 9, 50), rng.uniform(1, 9, 50)
    one, other = measure(predicted, depth)["silog"], measure(7 * predicted, depth)["silog"]
    assert one == pytest.approx(other, rel=1e-9)


def test_abs_rel_in_disparity_is_another_number_and_delta_is_not():
    """Two pixels by hand: truth 2 and 10 m, predicted 1 and 5 m. In depth both are off by half, in
    disparity both by all of themselves; one that is predicted too near weighs more there."""
    depth, predicted = np.array([2.0, 10.0]), np.array([1.0, 5.0])
    assert measure(predicted, depth)["abs_rel"] == 0.5
    assert measure_disparity(1 / predicted, depth) == 1.0
    inverse = measure(1 / predicted, 1 / depth)
    assert [inverse[f"delta{k}"] for k in (1, 2, 3)] == [0, 0, 0]
    rng = np.random.default_rng(1)
    depth, predicted = rng.uniform(1, 9, 500), rng.uniform(1, 9, 500)
    one, other = measure(predicted, depth), measure(1 / predicted, 1 / depth)
    assert [one[f"delta{k}"] for k in (1, 2, 3)] == [other[f"delta{k}"] for k in (1, 2, 3)]
    assert other["abs_rel"] == pytest.approx(measure_disparity(1 / predicted, depth), rel=1e-9)


def test_disparity_may_be_negative():
    assert measure_disparity(np.array([-0.5]), np.array([2.0])) == 2.0
