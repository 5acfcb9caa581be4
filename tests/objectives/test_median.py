"""The bit-by-bit order statistics against NumPy's sort."""

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dav.objectives import median as order

PIXELS = 12  # one shape, so that every example shares a compilation

median = jax.jit(order.masked_median)
smallest = jax.jit(order.smallest)
gradient = jax.jit(jax.grad(lambda x, valid: order.masked_median(x, valid).sum()))
steady = settings(deadline=None, derandomize=True, max_examples=50)

huge = st.floats(-(2.0**120), 2.0**120, width=32, allow_subnormal=False)
near = st.floats(-100, 100, width=32, allow_subnormal=False)
tied = st.sampled_from([-88.1, -0.3, -0.0, 0.0, 0.1, 3.3, 1000.7])


def pixels(values):
    return st.lists(values, min_size=PIXELS, max_size=PIXELS)


def masks(at_least):
    flags = st.lists(st.booleans(), min_size=PIXELS, max_size=PIXELS)
    return flags.filter(lambda valid: sum(valid) >= at_least)


any_pixels = st.one_of(pixels(huge), pixels(near), pixels(tied))


def as_map(values, valid):
    return np.array([values], np.float32), np.array([valid])


def expected_gradient(x, valid):
    """Half to the holders of either middle value, shared equally by ties; x, valid [P]."""
    inside = np.sort(x[valid])
    middles = inside[(len(inside) - 1) // 2], inside[len(inside) // 2]
    hits = [valid & (x == value) for value in middles]
    return sum(hit / hit.sum() for hit in hits) / 2


@given(any_pixels, masks(1))
@example([7.0] * PIXELS, [True] * 3 + [False] * 9)
@steady
def test_median_equals_numpys_over_the_valid_pixels(values, valid):
    x, valid = as_map(values, valid)
    expected = np.median(x[valid])
    np.testing.assert_allclose(median(x, valid)[0], expected, rtol=1e-6, atol=1e-36)


@given(tied.filter(bool), st.integers(1, PIXELS))
@steady
def test_median_of_equal_pixels_is_their_value_to_the_last_bit(value, count):
    x, valid = as_map([value] * PIXELS, np.arange(PIXELS) < count)
    assert median(x, valid)[0] == np.float32(value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5.0], 5.0), ([5.0, 2.0], 3.5), ([9.0, -1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 9.0], 3.5)],
)
def test_median_of_an_even_count_is_the_mean_of_the_middle_two(values, expected):
    padding = PIXELS - len(values)
    x, valid = as_map(values + padding * [0.0], [True] * len(values) + padding * [False])
    assert median(x, valid)[0] == expected


@given(any_pixels)
@settings(deadline=None, derandomize=True, max_examples=20)
def test_median_and_gradient_are_zero_without_valid_pixels(values):
    x, valid = as_map(values, [False] * PIXELS)
    assert median(x, valid)[0] == 0
    np.testing.assert_array_equal(gradient(x, valid), np.zeros_like(x))


@given(st.one_of(pixels(huge), pixels(near), pixels(tied.filter(bool))), masks(1))
@steady
def test_gradient_is_shared_by_the_pixels_that_hold_a_middle_value(values, valid):
    x, valid = as_map([v or 1.0 for v in values], valid)  # -0 and +0 are ordered: no ties
    expected = expected_gradient(x[0], valid[0])
    found = np.asarray(gradient(x, valid)[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(), 1, atol=1e-6)
    assert not found[~valid[0]].any()


@given(pixels(st.sampled_from([-1.0, -0.0, 0.0, 1.0])), masks(1))
@steady
def test_gradient_between_signed_zeros_sums_to_one_on_the_middle_values(values, valid):
    x, valid = as_map(values, valid)
    found = np.asarray(gradient(x, valid)[0])
    np.testing.assert_allclose(found.sum(), 1, atol=1e-6)
    np.testing.assert_array_equal(found[expected_gradient(x[0], valid[0]) == 0], 0)


@given(any_pixels, masks(0), st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30]))
@steady
def test_invalid_pixels_change_neither_value_nor_gradient(values, valid, junk):
    x, valid = as_map(values, valid)
    spoiled = np.where(valid, x, np.float32(junk))
    np.testing.assert_array_equal(median(spoiled, valid), median(x, valid))
    np.testing.assert_array_equal(gradient(spoiled, valid), gradient(x, valid))


def test_maps_of_one_batch_are_independent_and_one_may_be_empty():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 31)).astype(np.float32)
    valid = rng.random((5, 31)) < [[0.1], [0.3], [0.0], [0.7], [1.0]]
    expected = [np.median(row[use]) if use.any() else 0 for row, use in zip(x, valid, strict=True)]
    np.testing.assert_allclose(median(x, valid), expected, rtol=1e-6)


def test_counts_beyond_floats_are_taken_as_integers(monkeypatch):
    x = np.random.default_rng(1).normal(size=(2, 40)).astype(np.float32)
    valid = x > -1
    expected = median(x, valid)
    monkeypatch.setattr(order, "EXACT", 39)
    fresh = jax.jit(lambda *maps: order.masked_median(*maps))
    np.testing.assert_array_equal(fresh(x, valid), expected)


def test_the_gradient_has_a_forward_form_too():
    """As jvp and vjp of one linear map."""
    x, valid = as_map(np.arange(PIXELS), [True] * PIXELS)
    change = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    forward = jax.jit(lambda x, d: jax.jvp(lambda x: order.masked_median(x, valid), (x,), (d,)))
    value, slope = forward(x, change)
    assert value[0] == 5.5
    np.testing.assert_allclose(slope[0], np.sum(gradient(x, valid) * change), rtol=1e-6)


@given(any_pixels, masks(0), st.integers(0, PIXELS))
@example([2.0] * PIXELS, [True] * PIXELS, 5)
@example([1.0, 2.0, 2.0, 2.0] * 3, [True] * PIXELS, 5)
@steady
def test_smallest_weighs_the_least_pixels_and_shares_the_last_places(values, valid, count):
    x, valid = as_map([v or 1.0 for v in values], valid)
    count = min(count, valid.sum())
    weights = np.asarray(smallest(x, valid, np.array([count])))[0]
    inside = np.sort(x[valid])
    last = inside[count - 1] if count else -np.inf
    below, ties = valid[0] & (x[0] < last), valid[0] & (x[0] == last)
    expected = below + ties * (count - below.sum()) / max(ties.sum(), 1)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_no_gradient_flows_through_the_weights_of_the_smallest():
    x, valid = as_map(np.arange(PIXELS), [True] * PIXELS)
    grad = jax.jit(jax.grad(lambda x: order.smallest(x, valid, np.array([5])).sum()))(x)
    assert not grad.any()
