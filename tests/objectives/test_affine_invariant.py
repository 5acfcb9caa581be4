"""The affine-invariant loss: its invariances, a slow reference and its degenerate maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dav.objectives import affine_invariant as ai

SHAPE = (4, 5)
TRIMS = [(0.0, True), (0.1, True), (0.2, False)]  # V1; V2; MiDaS

loss_and_count = jax.jit(ai.affine_invariant, static_argnames=("trim", "mean_over_kept"))
value_and_gradient = jax.jit(
    jax.value_and_grad(lambda *maps, **options: ai.affine_invariant(*maps, **options)[0]),
    static_argnames=("trim", "mean_over_kept"),
)

# Small integers times and plus short binary fractions: exact in float32, so that what remains is
# the error of the loss itself.
levels = st.lists(st.integers(0, 255), min_size=20, max_size=20)
flags = st.lists(st.booleans(), min_size=20, max_size=20)
scales = st.builds(lambda a, b: a / 2**b, st.integers(1, 64), st.integers(0, 6))
shifts = st.integers(-1000, 1000)
trims = st.sampled_from([0.0, 0.1, 0.3])
steady = settings(deadline=None, derandomize=True, max_examples=50)


def as_map(values, dtype=np.float32):
    return np.array(values, dtype).reshape(1, *SHAPE)


def random_maps(seed, shape=(3, 9, 11)):
    rng = np.random.default_rng(seed)
    prediction, target = rng.random((2, *shape), np.float32)
    return 30 * prediction, target, rng.random(shape) < 0.6


@given(levels, levels, flags, scales, shifts, scales, shifts, trims)
@steady
def test_loss_ignores_scale_and_shift_of_either_map(p, t, valid, a, b, c, d, trim):
    prediction, target, valid = as_map(p), as_map(t), as_map(valid, bool)
    assume(len(set(prediction[valid])) > 1 and len(set(target[valid])) > 1)
    plain, count = loss_and_count(prediction, target, valid, trim=trim)
    moved, _ = loss_and_count(a * prediction + b, c * target + d, valid, trim=trim)
    assert count == 1 and plain.dtype == moved.dtype == count.dtype == jnp.float32
    np.testing.assert_allclose(moved, plain, rtol=1e-5, atol=1e-5)


@given(levels, flags, scales, shifts, trims)
@steady
def test_loss_is_zero_where_the_prediction_is_the_target_up_to_scale_and_shift(
    x, valid, a, b, trim
):
    target, valid = as_map(x), as_map(valid, bool)
    assume(len(set(target[valid])) > 1)
    np.testing.assert_allclose(loss_and_count(target, target, valid, trim=trim)[0], 0, atol=1e-6)
    np.testing.assert_allclose(
        loss_and_count(a * target + b, target, valid, trim=trim)[0], 0, atol=1e-5
    )


def test_loss_sees_a_reversed_prediction():
    _, target, valid = random_maps(0)
    assert loss_and_count(-target, target, valid)[0] > 3


@given(levels, levels, flags, st.sampled_from(TRIMS))
@example([7] * 20, list(range(20)), [True] * 20, (0.1, True))
@example([0] * 10 + [9] * 10, [0] * 10 + [9] * 10, [True] * 20, (0.2, False))
@steady
def test_loss_equals_the_slow_reference_with_ties(p, t, valid, how):
    trim, over_kept = how
    maps = as_map(p), as_map(t), as_map(valid, bool)
    assume(len(set(maps[0][maps[2]])) > 1)
    found, count = loss_and_count(*maps, trim=trim, mean_over_kept=over_kept)
    expected, images = slow.affine_invariant(*maps, trim=trim, mean_over_kept=over_kept)
    assert count == images
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("trim", "over_kept"), TRIMS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_slow_reference(seed, trim, over_kept):
    maps = random_maps(seed, (3, 40, 56))
    found = loss_and_count(*maps, trim=trim, mean_over_kept=over_kept)
    expected = slow.affine_invariant(*maps, trim=trim, mean_over_kept=over_kept)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_trimming_ignores_the_pixels_with_the_largest_loss():
    """Ten pixels, one of them wrong: without its share of the loss next to nothing is left."""
    target = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    prediction = target.copy()
    prediction[0, 1, 4] = 12.0  # the order, and with it the median, stays
    valid = np.ones_like(target, bool)
    losses = np.abs(slow.normalise(prediction[0]) - slow.normalise(target[0])).ravel()
    assert losses.argmax() == 9
    for over_kept, pixels in ((True, 9), (False, 10)):
        found, _ = loss_and_count(prediction, target, valid, trim=0.1, mean_over_kept=over_kept)
        np.testing.assert_allclose(found, losses[:9].sum() / pixels, rtol=1e-5)


@pytest.mark.parametrize("trim", [0.1, 0.2, 0.5])
def test_a_constant_loss_map_is_not_emptied(trim):
    """All twenty losses are 1 ("below the threshold", as V2's author writes it, is none)."""
    target = as_map([-1.0, 1.0] * 10)
    valid = np.ones_like(target, bool)
    np.testing.assert_allclose(
        loss_and_count(np.full_like(target, 3.0), target, valid, trim=trim)[0], 1, rtol=1e-6
    )


def test_even_counts_use_the_mean_of_the_middle_two():
    target = jnp.array([[[0.0, 1.0], [2.0, 3.0]]])  # median 1.5, spread 1
    prediction = jnp.array([[[0.0, 0.0], [4.0, 8.0]]])  # median 2, spread 3
    loss, _ = loss_and_count(prediction, target, jnp.ones((1, 2, 2), bool))
    np.testing.assert_allclose(loss, (5 / 6 + 1 / 6 + 1 / 6 + 1 / 2) / 4, rtol=1e-6)


def test_normalise_ignores_invalid_pixels_and_leaves_them_zero():
    x = jnp.array([[1.0, 2.0, 9.0, jnp.nan]])
    found, usable = ai.normalise(x, jnp.array([[True, True, True, False]]))
    assert usable[0]  # the median of 1, 2, 9: the fourth was never measured
    np.testing.assert_allclose(found, [[-3 / 8, 0, 21 / 8, 0]], rtol=1e-6)


def test_masked_mean_is_zero_without_valid_pixels():
    x = jnp.array([[1.0, 2.0, 6.0], [1.0, jnp.nan, 2.0]])
    valid = jnp.array([[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(ai.masked_mean(x, valid), [3.5, 0.0])


@pytest.mark.parametrize(("trim", "over_kept"), TRIMS)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_a_difference_quotient_of_the_slow_reference(seed, trim, over_kept):
    prediction, target, valid = random_maps(seed)
    options = {"trim": trim, "mean_over_kept": over_kept}
    _, grad = value_and_gradient(prediction, target, valid, **options)
    direction = np.random.default_rng(seed + 100).normal(size=prediction.shape)
    step = 1e-6 * direction  # far below the distance of any two pixels: no kink in between
    ahead, behind = (
        slow.affine_invariant(prediction + s, target, valid, **options)[0] for s in (step, -step)
    )
    np.testing.assert_allclose(np.sum(grad * direction), (ahead - behind) / 2e-6, rtol=1e-4)


def test_gradient_is_blind_to_scale_and_shift_of_the_prediction():
    prediction, target, valid = random_maps(7)
    _, grad = value_and_gradient(prediction, target, valid)
    size = np.abs(grad).sum()
    np.testing.assert_allclose(np.sum(grad, axis=(1, 2)) / size, 0, atol=1e-6)
    np.testing.assert_allclose(np.sum(grad * prediction, axis=(1, 2)) / size, 0, atol=1e-5)


def test_the_target_gets_no_gradient():
    grad = jax.grad(lambda p, t, v: ai.affine_invariant(p, t, v)[0], argnums=1)(*random_maps(8))
    assert not grad.any()


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
    one_outlier,
)


@pytest.mark.parametrize("trim", [0.0, 0.1])
@pytest.mark.parametrize("case", DEGENERATE, ids=lambda case: case.__name__)
def test_loss_and_gradient_stay_finite(case, trim):
    loss, grad = value_and_gradient(*case(*random_maps(1)), trim=trim)
    assert np.isfinite(loss) and np.isfinite(grad).all()


@pytest.mark.parametrize("case", [one_valid_pixel, constant_target, constant_both, all_invalid])
def test_a_target_without_spread_is_not_counted(case):
    maps = case(*random_maps(2))
    loss, count = loss_and_count(*maps)
    assert count == 0 and loss == 0
    assert not value_and_gradient(*maps)[1].any()


@given(st.integers(-100, 100), st.integers(-100, 100), trims)
@steady
def test_powers_of_two_of_any_size_change_no_bit_of_the_loss(a, b, trim):
    """1e-30 to 1e30: what is squared or summed on the way must stay in float32."""
    prediction, target, valid = random_maps(3)
    plain = value_and_gradient(prediction, target, valid, trim=trim)
    found = value_and_gradient(
        prediction * np.float32(2.0**a), target * np.float32(2.0**b), valid, trim=trim
    )
    assert found[0] == plain[0]
    np.testing.assert_allclose(np.asarray(found[1]) * np.float32(2.0**a), plain[1], rtol=1e-6)


@given(
    st.lists(
        st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=20, max_size=20
    ),
    flags,
)
@steady
def test_any_range_within_one_map_stays_finite(values, valid):
    _, target, _ = random_maps(4, (1, *SHAPE))
    prediction, valid = as_map(values), as_map(valid, bool)
    for maps in ((prediction, target, valid), (target, prediction, valid)):
        loss, grad = value_and_gradient(*maps)
        assert np.isfinite(loss)
        spread = np.abs(maps[0] - np.median(maps[0]))[valid]
        assert np.isfinite(grad).all() or spread.mean() < 1e-30


@pytest.mark.parametrize("value", [0.0, 0.1, 88.1, 1000.7])
def test_a_constant_prediction_scores_one_wherever_it_lies(value):
    prediction, target, valid = constant_prediction(*random_maps(3))
    loss, count = loss_and_count(np.full_like(prediction, value), target, valid)
    assert count == 3
    np.testing.assert_allclose(loss, 3, rtol=1e-5)  # the mean of |normalised target|


@pytest.mark.parametrize("noise", [2.0**-24, 2.0**-20])
def test_rounding_about_a_large_value_is_no_target_but_more_is(noise):
    prediction, target, valid = random_maps(3)
    target = np.float32(1000) * (1 + np.float32(noise) * np.sign(target - 0.5))
    assert loss_and_count(prediction, target, valid)[1] == (0 if noise < 2e-7 else 3)


@pytest.mark.parametrize("junk", [1e9, -1e9, np.inf, np.nan])
@pytest.mark.parametrize("spoiled", ["prediction", "target"])
def test_invalid_pixels_change_neither_loss_nor_gradient(spoiled, junk):
    prediction, target, valid = random_maps(4)
    clean = value_and_gradient(prediction, target, valid, trim=0.1)
    if spoiled == "prediction":
        prediction = np.where(valid, prediction, np.float32(junk))
    else:
        target = np.where(valid, target, np.float32(junk))
    loss, grad = value_and_gradient(prediction, target, valid, trim=0.1)
    assert loss == clean[0]
    np.testing.assert_array_equal(grad, clean[1])
    assert not np.asarray(grad)[~valid].any()


@pytest.mark.parametrize("trim", [0.0, 0.1])
@pytest.mark.parametrize("junk", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("spoiled", ["prediction", "target"])
def test_one_value_that_is_not_finite_in_a_valid_pixel_shows(spoiled, junk, trim):
    """The trimming must not drop it, nor a constant target the image it is in."""
    prediction, target, valid = random_maps(4)
    target[1] = 0.5
    for image in range(3):
        maps = {"prediction": prediction.copy(), "target": target.copy()}
        maps[spoiled][image][tuple(np.argwhere(valid[image])[0])] = junk
        assert not np.isfinite(loss_and_count(**maps, valid=valid, trim=trim)[0])


def test_sums_and_counts_add_up_over_parts_of_the_batch():
    prediction, target, valid = random_maps(5, (6, 9, 11))
    target[3], valid[4] = 0.3, False
    for trim in (0.0, 0.1):
        errors, usable = jax.jit(ai.per_image, static_argnames="trim")(
            prediction, target, valid, trim=trim
        )
        parts = [
            loss_and_count(*(x[i : i + 1] for x in (prediction, target, valid)), trim=trim)
            for i in range(6)
        ]
        np.testing.assert_array_equal(errors, [total for total, _ in parts])
        np.testing.assert_array_equal(usable, [count for _, count in parts])
        total, count = loss_and_count(prediction, target, valid, trim=trim)
        assert count == 4
        np.testing.assert_allclose(total, np.sum(errors), rtol=1e-6)
