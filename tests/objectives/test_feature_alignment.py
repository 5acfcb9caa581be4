"""Feature alignment with a margin against the formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.objectives.feature_alignment import feature_alignment

SHAPE = (2, 3, 4, 8)


def random_features(seed):
    """Tokens at every distance from the frozen ones, and both scaled at random."""
    rng = np.random.default_rng(seed)
    frozen, noise = rng.normal(size=(2, *SHAPE))
    tokens = frozen + np.linspace(0.05, 2.0, 24).reshape(*SHAPE[:3], 1) * noise
    sizes = rng.uniform(0.1, 30, (2, *SHAPE[:3], 1))
    return (sizes[0] * tokens).astype(np.float32), (sizes[1] * frozen).astype(np.float32)


def cosines(tokens, frozen):
    tokens, frozen = tokens.astype(np.float64), frozen.astype(np.float64)
    lengths = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(frozen, axis=-1)
    return np.sum(tokens * frozen, axis=-1) / lengths


def total(tokens, frozen):
    return feature_alignment(tokens, frozen, margin=0.85)[0]


total_and_count = jax.jit(feature_alignment, static_argnames="margin")
gradient = jax.jit(jax.grad(total))


@pytest.mark.parametrize("margin", [0.5, 0.85, 1.1])
@pytest.mark.parametrize("seed", range(3))
def test_sum_and_count_equal_the_formula(seed, margin):
    tokens, frozen = random_features(seed)
    expected, kept = slow.feature_alignment(tokens, frozen, margin=margin)
    assert kept > 0 and (margin > 1 or kept < 24)
    found, count = total_and_count(tokens, frozen, margin=margin)
    assert count == kept and found.dtype == count.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(st.integers(-80, 80), st.integers(-80, 80))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_powers_of_two_of_any_size_change_no_bit(a, b):
    """Lengths of 1e-24 to 1e24 cost nothing: only directions count."""
    tokens, frozen = random_features(8)
    plain = total_and_count(tokens, frozen, margin=0.85)
    moved = tokens * np.float32(2.0**a), frozen * np.float32(2.0**b)
    np.testing.assert_array_equal(total_and_count(*moved, margin=0.85), plain)
    found = np.asarray(gradient(*moved)) * np.float32(2.0**a)
    np.testing.assert_allclose(found, gradient(tokens, frozen), atol=1e-6)


def test_half_precision_tokens_are_summed_in_float32():
    tokens, frozen = (jnp.asarray(x, jnp.bfloat16) for x in random_features(9))
    found, count = total_and_count(tokens, frozen, margin=0.85)
    expected, kept = slow.feature_alignment(np.asarray(tokens), np.asarray(frozen), margin=0.85)
    assert count == kept and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("junk", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("spoiled", [0, 1])
def test_one_value_that_is_not_finite_shows(spoiled, junk):
    """Also in a token that the margin would leave alone."""
    for token in ((0, 0, 0), (1, 2, 3)):
        features = random_features(10)
        features[spoiled][(*token, 5)] = junk
        assert not np.isfinite(total_and_count(*features, margin=0.85)[0])


def test_sums_and_counts_add_up_over_parts_of_the_batch():
    tokens, frozen = random_features(11)
    parts = [total_and_count(tokens[[i]], frozen[[i]], margin=0.85) for i in range(2)]
    found, count = total_and_count(tokens, frozen, margin=0.85)
    assert count == sum(count for _, count in parts)
    np.testing.assert_allclose(found, sum(part for part, _ in parts), rtol=1e-6)


def test_a_token_exactly_at_the_margin_is_kept():
    tokens, frozen = jnp.array([[[[1.0, 0.0]]]]), jnp.array([[[[0.0, 1.0]]]])
    found, count = total_and_count(tokens, frozen, margin=0.0)
    assert (found, count) == (1, 1)


def test_tokens_above_the_margin_get_no_gradient():
    tokens, frozen = random_features(3)
    grad = np.asarray(gradient(tokens, frozen))
    kept = cosines(tokens, frozen) <= 0.85
    assert not grad[~kept].any()
    assert grad[kept].any(axis=-1).all()


def test_gradient_turns_kept_tokens_towards_the_frozen_ones():
    tokens, frozen = random_features(4)
    unit, aim = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (tokens, frozen))
    cosine = np.sum(unit * aim, axis=-1, keepdims=True)
    expected = -(aim - cosine * unit) / np.linalg.norm(tokens, axis=-1, keepdims=True)
    expected = np.where(cosine <= 0.85, expected, 0)
    grad = gradient(tokens, frozen)
    np.testing.assert_allclose(grad, expected, atol=1e-5 * np.abs(expected).max())


def test_nothing_kept_gives_zero_and_no_gradient():
    _, frozen = random_features(5)
    found, count = total_and_count(3 * frozen, frozen, margin=0.85)
    assert (found, count) == (0, 0)
    assert not gradient(3 * frozen, frozen).any()


def test_the_frozen_encoder_gets_no_gradient():
    assert not jax.jit(jax.grad(total, argnums=1))(*random_features(6)).any()


@pytest.mark.parametrize("zero", ["tokens", "frozen", "both"])
def test_zero_vectors_count_as_orthogonal_and_stay_finite(zero):
    tokens, frozen = random_features(7)
    if zero != "frozen":
        tokens[0, 0, 0] = 0
    if zero != "tokens":
        frozen[0, 0, 0] = 0
    found, count = total_and_count(tokens, frozen, margin=0.85)
    rest = cosines(tokens[tokens.any(-1) & frozen.any(-1)], frozen[tokens.any(-1) & frozen.any(-1)])
    assert count == 1 + (rest <= 0.85).sum()
    np.testing.assert_allclose(found, 1 + np.sum(1 - rest[rest <= 0.85]), rtol=1e-5)
    assert np.isfinite(gradient(tokens, frozen)).all()
