"""Feature alignment with a margin against the formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


gradient = jax.jit(jax.grad(total))


@pytest.mark.parametrize("margin", [0.5, 0.85, 1.1])
@pytest.mark.parametrize("seed", range(3))
def test_sum_and_count_equal_the_formula(seed, margin):
    tokens, frozen = random_features(seed)
    cosine = cosines(tokens, frozen)
    kept = cosine <= margin
    assert kept.sum() > 0 and (margin > 1 or kept.sum() < kept.size)
    found, count = feature_alignment(tokens, frozen, margin=margin)
    assert count == kept.sum()
    np.testing.assert_allclose(found, np.sum(1 - cosine[kept]), rtol=1e-5)


def test_a_token_exactly_at_the_margin_is_kept():
    tokens, frozen = jnp.array([[[[1.0, 0.0]]]]), jnp.array([[[[0.0, 1.0]]]])
    found, count = feature_alignment(tokens, frozen, margin=0.0)
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
    found, count = feature_alignment(3 * frozen, frozen, margin=0.85)
    assert (found, count) == (0, 0)
    assert not gradient(3 * frozen, frozen).any()


def test_the_frozen_encoder_gets_no_gradient():
    assert not jax.grad(total, argnums=1)(*random_features(6)).any()


@pytest.mark.parametrize("zero", ["tokens", "frozen", "both"])
def test_zero_vectors_count_as_orthogonal_and_stay_finite(zero):
    tokens, frozen = random_features(7)
    if zero != "frozen":
        tokens[0, 0, 0] = 0
    if zero != "tokens":
        frozen[0, 0, 0] = 0
    found, count = feature_alignment(tokens, frozen, margin=0.85)
    rest = cosines(tokens[tokens.any(-1) & frozen.any(-1)], frozen[tokens.any(-1) & frozen.any(-1)])
    assert count == 1 + (rest <= 0.85).sum()
    np.testing.assert_allclose(found, 1 + np.sum(1 - rest[rest <= 0.85]), rtol=1e-5)
    assert np.isfinite(gradient(tokens, frozen)).all()
