"""The bilinear resize with coinciding corners and its hand-written gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav.models.resize import _gather_back, bilinear_weights, resize_bilinear

CASES = {
    "up": ((3, 4), (7, 9)),
    "down": ((9, 8), (4, 3)),
    "up and down": ((4, 9), (9, 4)),
    "identity": ((5, 6), (5, 6)),
    "one axis": ((5, 6), (5, 11)),
    "double": ((19, 5), (38, 10)),
    "from one row": ((1, 4), (5, 7)),
    "to one column": ((4, 5), (6, 1)),
    "one to one": ((1, 1), (1, 1)),
}
every_case = pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES.keys())


def random_maps(size, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *size, 3)).astype(np.float32)


def slow_resize(x, size):
    """Bilinear resize of x [B, y, x, C] with align_corners, one output pixel after the other."""
    out = np.zeros((x.shape[0], *size, x.shape[3]))
    for row in range(size[0]):
        top, bottom, down = neighbours(row, x.shape[1], size[0])
        for column in range(size[1]):
            left, right, across = neighbours(column, x.shape[2], size[1])
            above = (1 - across) * x[:, top, left] + across * x[:, top, right]
            below = (1 - across) * x[:, bottom, left] + across * x[:, bottom, right]
            out[:, row, column] = (1 - down) * above + down * below
    return out


def neighbours(index, n_in, n_out):
    at = index * (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
    low = int(np.floor(at))
    return low, min(low + 1, n_in - 1), at - low


def matrix_resize(x, size):
    rows, columns = (bilinear_weights(*n) for n in zip(x.shape[1:3], size, strict=True))
    return jnp.einsum("Yy,byxc,Xx->bYXc", rows, x, columns)


@functools.partial(jax.jit, static_argnums=(0, 2))
def value_and_gradient(resize, x, size, upstream):
    value, pull_back = jax.vjp(lambda x: resize(x, size), x)
    return value, pull_back(upstream)[0]


@every_case
def test_value_and_gradient_equal_the_references(before, after):
    x, upstream = random_maps(before), random_maps(after, seed=1)
    value, gradient = value_and_gradient(resize_bilinear, x, after, upstream)
    matrix_value, matrix_gradient = value_and_gradient(matrix_resize, x, after, upstream)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, slow_resize(x, after), atol=1e-5)
    np.testing.assert_allclose(value, matrix_value, atol=1e-5)
    np.testing.assert_allclose(gradient, matrix_gradient, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1), (3, 7), (19, 37), (37, 19), (296, 518)])
def test_rows_of_the_matrix_are_weights(sizes):
    weights = bilinear_weights(*sizes)
    assert weights.shape == sizes[::-1] and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_corners_coincide():
    x = random_maps((4, 5))
    found = np.asarray(resize_bilinear(x, (11, 8)))
    np.testing.assert_allclose(found[:, ::10, ::7], x[:, ::3, ::4], atol=1e-6)


def test_a_ramp_stays_a_ramp():
    ramp = np.linspace(2.0, 5.0, 19, dtype=np.float32)[None, :, None, None]
    expected = np.linspace(2.0, 5.0, 37)[None, :, None, None]
    np.testing.assert_allclose(resize_bilinear(ramp, (37, 1)), expected, rtol=1e-6)


def test_resize_keeps_bfloat16():
    x = jnp.asarray(random_maps((3, 4)), jnp.bfloat16)
    upstream = jnp.asarray(random_maps((7, 9)), jnp.bfloat16)
    found, gradient = value_and_gradient(resize_bilinear, x, (7, 9), upstream)
    assert found.dtype == gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(np.float32), slow_resize(np.asarray(x, np.float32), (7, 9)), atol=0.03
    )


@pytest.mark.parametrize(("platform", "products"), [("cpu", 0), ("tpu", 2), ("cuda", 2)])
def test_only_a_cpu_gathers_the_gradient(platform, products):
    gradient = jax.jit(jax.grad(lambda x: (resize_bilinear(x, (7, 9)) ** 2).sum()))
    text = gradient.trace(jnp.ones((1, 3, 4, 2))).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products


def test_the_gradient_is_gathered_from_few_outputs():
    """As many as an input sample is part of, also where some samples are part of none."""
    assert count_gathers(148, 74) == 4
    assert count_gathers(19, 74) == 1


def count_gathers(n_out, n_in):
    gradient = jax.jit(lambda x: _gather_back(x, 1, n_in))
    compiled = gradient.lower(jnp.ones((1, n_out, 2, 1))).compile()
    return compiled.as_text().count(" gather(")
