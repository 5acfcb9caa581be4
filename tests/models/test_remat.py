"""What is computed anew changes no gradient, and is really not kept."""

import itertools

import jax
import numpy as np
import pytest

from dav.models.depth_anything import Architecture, DepthAnything
from dav.models.remat import POLICIES

QUICK = {"xla_backend_optimization_level": 0}  # half the time, same results
SMALL = Architecture(64, 4, 2, (0, 1, 2, 3), 8, (4, 8, 12, 16), position_grid=3)


def loss_of(policy):
    """(parameters, image) → a loss of map and tokens, with stochastic depth at work."""
    model = DepthAnything(SMALL, remat=policy, drop_path=0.3)

    def loss(params, image):
        rngs = {"drop_path": jax.random.key(0)}
        disparity, tokens = model.apply({"params": params}, image, train=True, rngs=rngs)
        return (disparity**2).sum() + (tokens**2).sum()

    return loss


@pytest.fixture(scope="module")
def inputs():
    image = jax.random.normal(jax.random.key(1), (2, 28, 28, 3))
    params = jax.jit(DepthAnything(SMALL).init, compiler_options=QUICK)(jax.random.key(2), image)[
        "params"
    ]
    return params, image


@pytest.fixture(scope="module")
def expected(inputs):
    return jax.jit(jax.grad(loss_of("none")), compiler_options=QUICK)(*inputs)


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_no_gradient_changes(inputs, expected, policy):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()),
        jax.jit(jax.grad(loss_of(policy)), compiler_options=QUICK)(*inputs),
        expected,
    )


def test_each_policy_keeps_less_than_the_one_before(inputs):
    kept = []
    for policy in POLICIES:
        _, backward = jax.eval_shape(lambda *given, p=policy: jax.vjp(loss_of(p), *given), *inputs)
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(backward)))
    assert all(less < more for more, less in itertools.pairwise(kept)), kept
