"""Bilinear resize whose corner samples coincide (torch's align_corners=True).

Shapes: B batch, y x input size, Y X output size, C channels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def resize_bilinear(x, size):
    """Resizes x [B, y, x, C] to [B, Y, X, C]; output i samples input i * (n - 1) / (m - 1).

    Forward by gather and interpolation. The gradient is no scattered sum, which is slow on every
    back end: a CPU gathers it too, elsewhere it is two matrix products by the transposed weights.
    """
    return _resize(x, tuple(size))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _resize(x, size):
    return _lerp(_lerp(x, 1, size[0]), 2, size[1])


def _forward(x, size):
    return _resize(x, size), x.shape[1:3]


def _backward(size, input_size, grad):
    def gather(grad):
        return _gather_back(_gather_back(grad, 1, input_size[0]), 2, input_size[1])

    def multiply(grad):
        rows = jnp.asarray(bilinear_weights(input_size[0], size[0]), grad.dtype)
        columns = jnp.asarray(bilinear_weights(input_size[1], size[1]), grad.dtype)
        grad = jnp.einsum("bYXc,Yy->byXc", grad, rows)
        return jnp.einsum("byXc,Xx->byxc", grad, columns)

    return (jax.lax.platform_dependent(grad, cpu=gather, default=multiply),)


_resize.defvjp(_forward, _backward)


def _lerp(x, axis, n_out):
    n_in = x.shape[axis]
    if n_in == n_out:
        return x
    low, weight = bilinear_positions(n_in, n_out)
    shape = [1] * x.ndim
    shape[axis] = n_out
    weight = jnp.asarray(weight.reshape(shape), x.dtype)
    below = jnp.take(x, low, axis=axis, mode="clip")
    above = jnp.take(x, np.minimum(low + 1, n_in - 1), axis=axis, mode="clip")
    return below + (above - below) * weight


def _gather_back(grad, axis, n_in):
    """The gradient by the input of one axis: of the few outputs that each sample is part of."""
    n_out = grad.shape[axis]
    if n_in == n_out:
        return grad
    weights = bilinear_weights(n_in, n_out)
    part = weights != 0
    first = np.argmax(part, axis=0)  # [n_in]
    last = np.where(part.any(axis=0), n_out - 1 - np.argmax(part[::-1], axis=0), first)
    total = 0
    for output in (first + place for place in range(np.max(last - first) + 1)):
        output, inside = np.minimum(output, n_out - 1), output < n_out
        weight = (weights[output, np.arange(n_in)] * inside).astype(grad.dtype)
        total += jnp.take(grad, output, axis, mode="clip") * jnp.expand_dims(
            weight, range(1, grad.ndim - axis)
        )
    return total


def bilinear_weights(n_in, n_out):
    """The same resize of one axis as a matrix float32 [n_out, n_in]; each row sums to 1."""
    low, weight = bilinear_positions(n_in, n_out)
    rows = np.zeros((n_out, n_in), np.float32)
    rows[np.arange(n_out), low] = 1 - weight
    rows[np.arange(n_out), np.minimum(low + 1, n_in - 1)] += weight
    return rows


def bilinear_positions(n_in, n_out):
    """For each output of one axis: the sample below it, int32 [n_out], and the weight float32 of
    the one above. In float32 throughout, as the reference computes them: its rounding shows."""
    step = np.float32(n_in - 1) / np.float32(max(n_out - 1, 1))
    at = step * np.arange(n_out, dtype=np.float32)
    low = np.minimum(at.astype(np.int32), max(n_in - 2, 0))
    return low, at - low.astype(np.float32)
