"""Strong perturbations: every operator against independent references, then the draws."""

import functools
import itertools

import jax
import numpy as np
import operator_parity
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.objectives import perturb

NEUTRAL = np.array([1, 1, 1, 0], np.float32)
STRENGTH = np.array([0.5, 0.5, 0.5, 0.25])
DRAWS = 20000
# Kolmogorov's statistic times the root of the count exceeds this once in 30 million samples.
KOLMOGOROV = 3.0

apply = jax.jit(perturb.apply)
perturb_batch = jax.jit(perturb.perturb)


def random_images(seed=0, shape=(24, 16, 18, 3)):
    return operator_parity.images(shape, seed).astype(np.float32) / 255


def all_draws(batch=24, **changes):
    """Draws that change nothing, but for `changes`."""
    neutral = {
        "order": np.tile(np.arange(4, dtype=np.int32), (batch, 1)),
        "factors": np.tile(NEUTRAL, (batch, 1)),
        "gray": np.zeros(batch, bool),
        "sigma_px": np.zeros(batch, np.float32),
    }
    return perturb.Draws(**neutral | changes)


@functools.cache
def drawn():
    """Many draws of one key, as NumPy arrays."""
    draws = jax.jit(perturb.draw, static_argnums=1)(jax.random.key(5), DRAWS)
    return jax.tree.map(np.asarray, draws)


@functools.cache
def drawn_by_keys():
    """The draws for a batch of two of each of many keys."""
    keys = jax.random.split(jax.random.key(6), DRAWS // 2)
    draws = jax.jit(jax.vmap(lambda key: perturb.draw(key, 2)))(keys)
    return jax.tree.map(lambda x: np.asarray(x).reshape(DRAWS, *x.shape[2:]), draws)


def is_jittered(draws):
    return (draws.factors != NEUTRAL).any(axis=1)


def kolmogorov(values, low, high):
    """Distance from the uniform distribution, times the root of the count."""
    share = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(values) + 1) / len(values)
    distance = max((steps[1:] - share).max(), (share - steps[:-1]).max())
    return distance * np.sqrt(len(values))


def columns(draws):
    """All that is drawn, a row a number, over the images that show all of it."""
    places = np.argsort(draws.order, axis=1).T[:3]  # the fourth follows from these
    shown = is_jittered(draws) & (draws.sigma_px > 0)
    return np.stack([*draws.factors.T, *places, draws.gray, draws.sigma_px])[:, shown]


@pytest.mark.parametrize("check", operator_parity.checks(), ids=lambda c: f"{c[0]}-{c[1]}")
def test_operators_equal_their_references(check):
    _, _, largest, bound = check
    assert largest() <= bound


def test_kept_results_are_not_the_images():
    """Else equality would prove nothing."""
    images = operator_parity.images() / 255
    with np.load(operator_parity.REFERENCE) as kept:
        for name in set(kept.files) - {"version"}:
            if "gaussian_blur 0.1" not in name:  # so small a sigma moves nothing
                found = kept[name] / (255 if kept[name].dtype == np.uint8 else 1)
                assert np.abs(found - images).mean() > 0.03, name


def test_all_24_orders_equal_the_operators_one_by_one():
    images, rng = random_images(), np.random.default_rng(1)
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    factors = (NEUTRAL + STRENGTH * rng.uniform(-1, 1, (24, 4))).astype(np.float32)
    found = apply(images, all_draws(order=orders, factors=factors))
    names = [*operator_parity.BLENDS, "hue"]
    for index, order in enumerate(orders):
        expected = images[index, None]
        for operation in order:
            expected = operator_parity.ours(names[operation], factors[index, operation], expected)
        np.testing.assert_allclose(found[index], expected[0], atol=2e-6, err_msg=str(order))


def test_neutral_draws_change_nothing_at_all():
    images = random_images()
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    np.testing.assert_array_equal(apply(images, all_draws(order=orders)), images)


def test_jitter_comes_first_then_gray_then_blur():
    images = random_images()
    factors = np.tile(np.array([1.4, 0.6, 1.3, 0.2], np.float32), (24, 1))
    together = {"factors": factors, "gray": np.ones(24, bool), "sigma_px": np.full(24, 1.5, "f4")}
    expected = images
    for name, value in together.items():
        expected = apply(expected, all_draws(**{name: value}))
    np.testing.assert_allclose(apply(images, all_draws(**together)), expected, atol=1e-6)


def test_blur_uses_each_images_own_sigma():
    images = np.repeat(random_images(5, (1, 16, 18, 3)), 24, axis=0)
    sigma_px = np.linspace(0, 2, 24, dtype=np.float32)
    found = np.asarray(apply(images, all_draws(sigma_px=sigma_px)))
    for index in (0, 7, 23):
        alone = apply(images, all_draws(sigma_px=np.full(24, sigma_px[index])))
        np.testing.assert_array_equal(found[index], alone[0])
    deviation = found.std(axis=(1, 2, 3))
    assert (np.diff(deviation) <= 0).all() and deviation[-1] < 0.5 * deviation[0]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(0, 2**31 - 1), st.sampled_from(["noise", "black", "white", "one colour"]))
def test_perturbed_images_keep_shape_type_and_range(seed, kind):
    images = random_images(seed)
    if kind != "noise":
        colour = {"black": 0.0, "white": 1.0, "one colour": images[:, 5:6, 5:6]}[kind]
        images = np.broadcast_to(np.float32(colour), images.shape)
    found = np.asarray(perturb_batch(jax.random.key(seed), images))
    assert found.shape == images.shape and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 + 1e-6
    if kind == "one colour":  # it stays one
        np.testing.assert_allclose(found, found[:, :1, :1] + 0 * found, atol=1e-6)


def test_what_one_image_becomes_does_not_depend_on_the_others():
    images, others = random_images(7), random_images(8)
    others[::3] = images[::3]
    first, second = (np.asarray(perturb_batch(jax.random.key(1), x)) for x in (images, others))
    np.testing.assert_array_equal(first[::3], second[::3])
    assert (first[1::3] != second[1::3]).any(axis=(1, 2, 3)).all()


def test_one_key_gives_one_result():
    images = random_images(7)
    first, again, other = (np.asarray(perturb_batch(jax.random.key(k), images)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).mean() > 0.8


def test_strengths_and_probabilities_are_unimatchs():
    jitter = (perturb.BRIGHTNESS, perturb.CONTRAST, perturb.SATURATION, perturb.HUE)
    assert jitter == (0.5, 0.5, 0.5, 0.25) and perturb.BLUR_SIGMA_PX == (0.1, 2.0)
    assert perturb.JITTER_PROBABILITY == 0.8
    assert (perturb.GRAY_PROBABILITY, perturb.BLUR_PROBABILITY) == (0.2, 0.5)


@pytest.mark.parametrize("draws", [drawn, drawn_by_keys])
def test_factors_and_sigma_are_uniform(draws):
    draws = draws()
    factors = draws.factors[is_jittered(draws)]
    for found, middle, strength in zip(factors.T, NEUTRAL, STRENGTH, strict=True):
        assert kolmogorov(found, middle - strength, middle + strength) < KOLMOGOROV
    assert kolmogorov(draws.sigma_px[draws.sigma_px > 0], 0.1, 2.0) < KOLMOGOROV


@pytest.mark.parametrize("draws", [drawn, drawn_by_keys])
def test_perturbations_have_their_probabilities(draws):
    draws = draws()
    for used, expected in ((is_jittered(draws), 0.8), (draws.gray, 0.2), (draws.sigma_px > 0, 0.5)):
        assert abs(used.mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / DRAWS)


@pytest.mark.parametrize("draws", [drawn, drawn_by_keys])
def test_all_24_orders_are_equally_frequent(draws):
    orders, counts = np.unique(draws().order, axis=0, return_counts=True)
    assert len(orders) == 24 and (np.sort(orders, axis=1) == np.arange(4)).all()
    expected = DRAWS / 24
    assert ((counts - expected) ** 2 / expected).sum() < 67  # χ² of 23: once in 300 000


@pytest.mark.parametrize("draws", [drawn, drawn_by_keys])
def test_draws_are_independent_of_one_another(draws):
    draws = draws()
    numbers = columns(draws)
    # Places within one order exclude one another: −1/3 is theirs.
    expected = np.eye(len(numbers))
    expected[4:7, 4:7] += (1 - np.eye(3)) * -1 / 3
    limit = 5 / np.sqrt(numbers.shape[1])
    strengths = np.concatenate([np.abs(numbers[:4] - NEUTRAL[:, None]), numbers[4:]])
    for several in (numbers, strengths):
        assert np.abs(np.corrcoef(several) - expected).max() < limit
    use = np.corrcoef([is_jittered(draws), draws.gray, draws.sigma_px > 0])
    assert np.abs(use - np.eye(3)).max() < 5 / np.sqrt(DRAWS)


@pytest.mark.parametrize("draws", [drawn, drawn_by_keys])
def test_images_of_one_batch_have_independent_draws(draws):
    numbers = columns(draws())
    count = numbers.shape[1]
    here, there = numbers[:, :-1], numbers[:, 1:]  # neighbours among those that show all
    across = np.corrcoef(here, there)[: len(numbers), len(numbers) :]
    assert np.abs(across).max() < 5 / np.sqrt(count)
    assert len(np.unique(numbers[:4], axis=1).T) == count


def test_images_that_are_not_floating_are_refused():
    with pytest.raises(ValueError, match=r"uint8 \(1, 8, 8, 3\): divide uint8 images by 255"):
        perturb.perturb(jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8))
