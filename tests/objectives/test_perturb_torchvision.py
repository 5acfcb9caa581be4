"""Strong perturbations against torchvision itself, where it imports.

Its wheels on PyPI need the PyTorch they were built for; the kept results in
operator_reference.npz, which test_perturb.py reads, need neither.
"""

import itertools

import jax
import numpy as np
import operator_parity
import pytest

from dav.objectives import perturb

torch = pytest.importorskip("torch")
try:
    import torchvision.transforms
except (ImportError, RuntimeError) as error:  # the latter: a wheel for another PyTorch
    pytest.skip(f"no torchvision that imports: {error}", allow_module_level=True)

DRAWS = 4000
# Of two samples of this size the distributions differ by more once in 30 million.
LARGEST_DISTANCE = 3.0 * np.sqrt(2 / DRAWS)


def test_kept_results_are_torchvisions():
    with np.load(operator_parity.REFERENCE) as kept:
        for operator in [*operator_parity.CASES, "jitter"]:
            for name, value in operator_parity.cases(operator):
                floats = operator_parity.images().astype(np.float32) / 255
                found = operator_parity.torchvisions(operator, value, floats)
                np.testing.assert_allclose(found, kept[f"{name} float32"], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("operator", operator_parity.CASES)
def test_operators_at_random_parameters(operator):
    rng = np.random.default_rng(3)
    ranges = {"hue": (-0.25, 0.25), "gaussian_blur": (0.1, 2.0)}
    images = operator_parity.images((4, 32, 40, 3), seed=4)
    for value in rng.uniform(*ranges.get(operator, (0.5, 1.5)), 5):
        for pixels, bound in (
            (images, operator_parity.BOUND),
            (images.astype(np.float32) / 255, operator_parity.FLOAT_BOUND),
        ):
            expected = operator_parity.torchvisions(operator, float(value), pixels)
            assert operator_parity.error(operator, value, images, expected) <= bound


def test_jitter_in_all_24_orders():
    rng = np.random.default_rng(5)
    images = operator_parity.images((1, 32, 40, 3), seed=6)
    for order in itertools.permutations(range(4)):
        factors = [*rng.uniform(0.5, 1.5, 3), rng.uniform(-0.25, 0.25)]
        value = (list(order), [float(factor) for factor in factors])
        expected = operator_parity.torchvisions("jitter", value, images.astype(np.float32) / 255)
        largest = operator_parity.error("jitter", value, images, expected)
        assert largest <= operator_parity.FLOAT_BOUND, order


def test_parameters_have_the_distribution_of_color_jitters():
    torch.manual_seed(0)
    jitter = torchvision.transforms.ColorJitter(0.5, 0.5, 0.5, 0.25)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = [jitter.get_params(*ranges) for _ in range(DRAWS)]
    draws = jax.jit(perturb.draw, static_argnums=1)(jax.random.key(7), 2 * DRAWS)
    factors = np.asarray(draws.factors)
    factors = factors[(factors != [1, 1, 1, 0]).any(axis=1)][:DRAWS]
    for index in range(4):
        ours, other = np.sort(factors[:, index]), np.sort([draw[1 + index] for draw in theirs])
        places = np.concatenate([ours, other])
        shares = [np.searchsorted(x, places, side="right") / DRAWS for x in (ours, other)]
        assert np.abs(shares[0] - shares[1]).max() < LARGEST_DISTANCE
    other = np.stack([draw[0].numpy() for draw in theirs])
    for order in itertools.permutations(range(4)):
        shares = [(x == order).all(axis=1).mean() for x in (np.asarray(draws.order), other)]
        assert abs(shares[0] - shares[1]) < 5 * np.sqrt(1.5 / 24 / DRAWS)
