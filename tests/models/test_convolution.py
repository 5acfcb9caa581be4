"""The decoder's convolution against XLA's own, values and gradients."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from dav.models.convolution import NHWC, convolve

sides = st.integers(1, 9)


def gradients(function, x, kernel, weights):
    return jax.grad(lambda x, kernel: (function(x, kernel) * weights).sum(), argnums=(0, 1))(
        x, kernel
    )


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=sides,
    width=sides,
    channels=st.integers(1, 5),
    features=st.integers(1, 5),
    form=st.sampled_from([(1, 1, 0), (3, 1, 1), (5, 1, 2), (3, 2, 1), (3, 1, 0)]),
)
def test_equals_the_plain_convolution(batch, height, width, channels, features, form):
    k, stride, pad = form
    assume(min(height, width) + 2 * pad >= k)
    rng = np.random.default_rng(batch * height + width)
    x = jnp.asarray(rng.standard_normal((batch, height, width, channels)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((k, k, channels, features)), jnp.float32)

    def plain(x, kernel):
        pads = ((pad, pad), (pad, pad))
        strides = (stride, stride)
        return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=NHWC)

    ours = lambda x, kernel: convolve(x, kernel, stride, pad)  # noqa: E731
    expected = plain(x, kernel)
    np.testing.assert_array_equal(ours(x, kernel), expected)
    weights = jnp.asarray(rng.standard_normal(expected.shape), jnp.float32)
    for one, other in zip(
        gradients(ours, x, kernel, weights), gradients(plain, x, kernel, weights), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * (1 + np.abs(other).max()))


def test_bfloat16_adds_up_in_float32():
    """Thousands of like pixels: sums in bfloat16 would stand still at 256."""
    x, kernel = jnp.ones((4, 64, 64, 1), jnp.bfloat16), jnp.ones((3, 3, 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda kernel: convolve(x, kernel, 1, 1).astype(jnp.float32).sum())(kernel)
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[1, 1, 0, 0]) == 4 * 64 * 64


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_a_cpu_goes_row_by_row(platform, loops):
    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 6), jnp.float32)
    loss = jax.jit(jax.grad(lambda kernel, x: convolve(x, kernel, 1, 1).sum()))
    text = loss.trace(kernel, x).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == loops
    assert "stablehlo.convolution" in text  # forward, at least


def test_several_devices_send_no_sums_row_by_row():
    """With a mesh of several devices the gradient is XLA's own, whatever the platform."""
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 6), jnp.float32)
    with jax.sharding.use_abstract_mesh(mesh):
        jaxpr = jax.make_jaxpr(jax.grad(lambda k, x: convolve(x, k, 1, 1).sum()))(kernel, x)
    assert "while" not in str(jaxpr) and "scan" not in str(jaxpr)
