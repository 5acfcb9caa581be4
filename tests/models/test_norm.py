"""LayerNorm and its gradients against the formula in float64."""

import re

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from dav.models.norm import EPSILON, LayerNorm


def normalise(params, x):
    return LayerNorm().apply({"params": params}, x)


def reference(x, scale, bias, gradient):
    """(output, gradients by x, scale and bias) in float64."""
    x, scale, bias, gradient = (np.float64(one) for one in (x, scale, bias, gradient))
    deviation = np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    normal = (x - x.mean(-1, keepdims=True)) / deviation
    scaled = gradient * scale
    means = scaled.mean(-1, keepdims=True) + normal * (scaled * normal).mean(-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    by_scale = (gradient * normal).sum(rows)
    return normal * scale + bias, ((scaled - means) / deviation, by_scale, gradient.sum(rows))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    mean=st.floats(-100, 100),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_those_of_the_formula(shape, mean, seed):
    shape[-1] += 3
    rng = np.random.default_rng(seed)
    x, gradient = np.float32(mean + rng.standard_normal((2, *shape)))
    scale, bias = np.float32(rng.standard_normal((2, shape[-1])))
    out, pull_back = jax.vjp(normalise, {"scale": scale, "bias": bias}, x)
    params, by_x = pull_back(jnp.asarray(gradient))
    assert out.dtype == by_x.dtype == jnp.float32
    expected, gradients = reference(x, scale, bias, gradient)
    # Of values close together but far from zero, float32 leaves few digits of the differences.
    tolerance = 1e-6 * (1 + abs(mean)) / min(x.std(-1).min(), 1) ** 2
    for one, other in zip(
        (out, by_x, params["scale"], params["bias"]), (expected, *gradients), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * (1 + np.abs(other).max()))


def test_like_rows_have_finite_gradients():
    """No variance: only epsilon keeps the division from infinity."""
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    gradient = jax.grad(lambda x: (normalise(params, x) ** 2).sum())(jnp.full((3, 8), 5.0))
    assert np.isfinite(gradient).all()


def test_bfloat16_is_normalised_in_float32():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 64)), jnp.bfloat16)
    params = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
    out, pull_back = jax.vjp(lambda x: normalise(params, x), x)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, normalise(params, x.astype(jnp.float32)), atol=1e-6)
    assert pull_back(out)[0].dtype == jnp.bfloat16


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="tests what XLA makes of it for a CPU")
def test_work_grows_with_the_number_of_blocks_not_with_its_square():
    """Multiplications in the compiled gradient of a residual stream. With flax's LayerNorm five
    times as many blocks have more than ten times as many."""

    def loss(x, weights):
        for kernel, scale in weights:
            x = x + jnp.dot(normalise({"scale": scale, "bias": scale}, x), kernel)
        return (x**2).sum()

    def multiplications(blocks):
        weights = [(jnp.ones((64, 64)), jnp.ones(64))] * blocks
        compiled = jax.jit(jax.grad(loss, 1)).lower(jnp.ones((256, 64)), weights).compile()
        return len(re.findall(r" multiply\(", compiled.as_text()))

    assert multiplications(20) < 6 * multiplications(4)


@pytest.mark.parametrize(("platform", "products"), [("cpu", 4), ("tpu", 0), ("cuda", 0)])
def test_only_a_cpu_adds_up_by_products(platform, products):
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    gradient = jax.jit(jax.grad(lambda params, x: (normalise(params, x) ** 2).sum(), (0, 1)))
    traced = gradient.trace(params, jnp.ones((3, 8)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products
