"""The affine-invariant loss: its invariances, a slow reference and its degenerate maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dav.objectives.affine_invariant import affine_invariant, masked_mean, shift_and_scale

SHAPE = (4, 5)

loss_and_usable = jax.jit(affine_invariant)
value_and_gradient = jax.jit(
    jax.value_and_grad(lambda prediction, *rest: affine_invariant(prediction, *rest)[0].sum())
)

# Small integers times and plus short binary fractions: exact in float32, so that what remains is
# the error of the loss itself.
levels = st.lists(st.integers(0, 255), min_size=20, max_size=20)
flags = st.lists(st.booleans(), min_size=20, max_size=20)
scales = st.builds(lambda a, b: a / 2**b, st.integers(1, 64), st.integers(0, 6))
shifts = st.integers(-1000, 1000)


def as_map(values, dtype=np.float32):
    return np.array(values, dtype).reshape(1, *SHAPE)


def slow_loss(prediction, target, valid):
    """The mean over valid pixels of |difference| of one pair of normalised maps [H, W]."""
    prediction, target = (x[valid].astype(np.float64) for x in (prediction, target))
    return np.abs(slow_normalise(prediction) - slow_normalise(target)).mean()


def slow_normalise(x):
    return (x - np.median(x)) / np.abs(x - np.median(x)).mean()


def random_maps(seed, shape=(3, 9, 11)):
    rng = np.random.default_rng(seed)
    prediction, target = rng.random((2, *shape), np.float32)
    return 30 * prediction, target, rng.random(shape) < 0.6


@given(levels, levels, flags, scales, shifts, scales, shifts)
@settings(deadline=None, derandomize=True)
def test_loss_ignores_scale_and_shift_of_either_map(p, t, valid, a, b, c, d):
    prediction, target, valid = as_map(p), as_map(t), as_map(valid, bool)
    assume(len(set(prediction[valid])) > 1 and len(set(target[valid])) > 1)
    plain, usable = loss_and_usable(prediction, target, valid)
    moved, _ = loss_and_usable(a * prediction + b, c * target + d, valid)
    assert usable[0] and plain.dtype == moved.dtype == jnp.float32
    np.testing.assert_allclose(moved, plain, rtol=1e-5, atol=1e-5)


@given(levels, flags, scales, shifts)
@settings(deadline=None, derandomize=True)
def test_loss_is_zero_where_the_prediction_is_the_target_up_to_scale_and_shift(x, valid, a, b):
    target, valid = as_map(x), as_map(valid, bool)
    assume(len(set(target[valid])) > 1)
    np.testing.assert_allclose(loss_and_usable(target, target, valid)[0], 0, atol=1e-6)
    np.testing.assert_allclose(loss_and_usable(a * target + b, target, valid)[0], 0, atol=1e-5)


def test_loss_sees_a_reversed_prediction():
    _, target, valid = random_maps(0)
    assert (loss_and_usable(-target, target, valid)[0] > 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_the_slow_reference(seed):
    prediction, target, valid = random_maps(seed)
    loss, usable = loss_and_usable(prediction, target, valid)
    expected = [slow_loss(*maps) for maps in zip(prediction, target, valid, strict=True)]
    assert usable.all() and loss.shape == (3,)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_even_counts_use_the_mean_of_the_middle_two():
    target = jnp.array([[[0.0, 1.0], [2.0, 3.0]]])  # median 1.5, spread 1
    prediction = jnp.array([[[0.0, 0.0], [4.0, 8.0]]])  # median 2, spread 3
    loss, _ = affine_invariant(prediction, target, jnp.ones((1, 2, 2), bool))
    np.testing.assert_allclose(loss, [(5 / 6 + 1 / 6 + 1 / 6 + 1 / 2) / 4], rtol=1e-6)


def test_shift_and_scale_ignore_invalid_pixels():
    disparity = jnp.array([[1.0, 2.0, 9.0, 0.0]])
    valid = jnp.array([[True, True, True, False]])
    shift, scale = shift_and_scale(disparity, valid)
    assert shift[0] == 2.0  # the median of 1, 2, 9: the 0 was never measured
    np.testing.assert_allclose(scale[0], (1 + 0 + 7) / 3, rtol=1e-6)


def test_masked_mean_is_zero_without_valid_pixels():
    x = jnp.array([[1.0, 2.0, 6.0], [1.0, jnp.nan, 2.0]])
    valid = jnp.array([[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(masked_mean(x, valid), [3.5, 0.0])


@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_a_difference_quotient_of_the_slow_reference(seed):
    maps = random_maps(seed)
    prediction, target, valid = (x[0] for x in maps)
    _, grad = value_and_gradient(*maps)
    direction = np.random.default_rng(seed + 100).normal(size=prediction.shape)
    step = 1e-6 * direction  # far below the distance of any two pixels: no kink in between
    ahead, behind = (slow_loss(prediction + s, target, valid) for s in (step, -step))
    np.testing.assert_allclose(np.sum(grad[0] * direction), (ahead - behind) / 2e-6, rtol=1e-4)


def test_gradient_is_blind_to_scale_and_shift_of_the_prediction():
    prediction, target, valid = random_maps(7)
    _, grad = value_and_gradient(prediction, target, valid)
    size = np.abs(grad).sum()
    np.testing.assert_allclose(np.sum(grad, axis=(1, 2)) / size, 0, atol=1e-6)
    np.testing.assert_allclose(np.sum(grad * prediction, axis=(1, 2)) / size, 0, atol=1e-5)


def one_valid_pixel(prediction, target, valid):
    return (
        prediction,
        target,
        valid & (np.cumsum(valid, axis=2) == 1) & (np.arange(9) == 4)[:, None],
    )


def constant_prediction(prediction, target, valid):
    return np.full_like(prediction, 88.1), target, valid


def zero_prediction(prediction, target, valid):
    return np.zeros_like(prediction), target, valid


def constant_target(prediction, target, valid):
    return prediction, np.full_like(target, 0.1), valid


def constant_both(prediction, target, valid):
    return np.full_like(prediction, 3.3), np.full_like(target, 0.1), valid


def all_invalid(prediction, target, valid):
    return prediction, target, np.zeros_like(valid)


def huge_prediction(prediction, target, valid):
    return prediction * np.float32(1e30), target, valid


def huge_target(prediction, target, valid):
    return prediction, target * np.float32(1e30), valid


def one_outlier(prediction, target, valid):
    prediction = prediction.copy()
    prediction[:, 0, 0] = 1e30
    return prediction, target, valid | (prediction == prediction.max())


DEGENERATE = (
    one_valid_pixel,
    constant_prediction,
    zero_prediction,
    constant_target,
    constant_both,
    all_invalid,
    huge_prediction,
    huge_target,
    one_outlier,
)


@pytest.mark.parametrize("case", DEGENERATE, ids=lambda case: case.__name__)
def test_loss_and_gradient_stay_finite(case):
    loss, grad = value_and_gradient(*case(*random_maps(1)))
    assert np.isfinite(loss) and np.isfinite(grad).all()


@pytest.mark.parametrize("case", [one_valid_pixel, constant_target, constant_both, all_invalid])
def test_a_target_without_spread_is_not_usable(case):
    maps = case(*random_maps(2))
    loss, usable = loss_and_usable(*maps)
    assert not usable.any() and not loss.any()
    assert not value_and_gradient(*maps)[1].any()


@pytest.mark.parametrize("value", [0.0, 0.1, 88.1, 1000.7])
def test_a_constant_prediction_scores_one_wherever_it_lies(value):
    prediction, target, valid = constant_prediction(*random_maps(3))
    loss, usable = loss_and_usable(np.full_like(prediction, value), target, valid)
    assert usable.all()
    np.testing.assert_allclose(loss, 1, rtol=1e-5)  # the mean of |normalised target|


@pytest.mark.parametrize("junk", [1e9, -1e9, np.inf, np.nan])
@pytest.mark.parametrize("spoiled", ["prediction", "target"])
def test_invalid_pixels_change_neither_loss_nor_gradient(spoiled, junk):
    prediction, target, valid = random_maps(4)
    clean = value_and_gradient(prediction, target, valid)
    if spoiled == "prediction":
        prediction = np.where(valid, prediction, np.float32(junk))
    else:
        target = np.where(valid, target, np.float32(junk))
    loss, grad = value_and_gradient(prediction, target, valid)
    assert loss == clean[0]
    np.testing.assert_array_equal(grad, clean[1])
    assert not np.asarray(grad)[~valid].any()


def test_images_of_one_batch_are_independent():
    maps, others = random_maps(5), random_maps(6)
    together, _ = loss_and_usable(*maps)
    for index in range(3):
        for mine, other in zip(maps, others, strict=True):
            other[index] = mine[index]
        found, _ = loss_and_usable(*others)
        np.testing.assert_array_equal(found[index], together[index])
        others = random_maps(7 + index)
