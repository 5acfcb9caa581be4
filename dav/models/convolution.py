"""A convolution whose gradient by the kernel is quick on a CPU too.

Shapes: B images of H × W, C channels in, F channels out, k the side of the kernel.
"""

import functools

import jax
import jax.numpy as jnp

from dav.models.placement import ambient_mesh

NHWC = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x, kernel, stride, pad):
    """x [B, H, W, C], kernel [k, k, C, F] → [B, H', W', F], with `pad` zeros on every side.

    XLA computes the gradient by the kernel as a convolution whose kernel is as large as the image.
    On a CPU that reaches a small part of what its matrix products do; there, on one device, they
    are used instead.
    """
    return _plain(x, kernel, stride, pad)


def _plain(x, kernel, stride, pad):
    pads = ((pad, pad), (pad, pad))
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=NHWC)


def _forward(x, kernel, stride, pad):
    return _plain(x, kernel, stride, pad), (x, kernel)


def _backward(stride, pad, kept, gradient):
    x, kernel = kept
    _, pull_back = jax.vjp(lambda x, kernel: _plain(x, kernel, stride, pad), x, kernel)
    by_x, by_kernel = pull_back(gradient)
    k = kernel.shape[0]
    # On several devices, each step of the loop would have to add up over them.
    if stride == 1 and k == 2 * pad + 1 > 1 and ambient_mesh(x).size <= 1:
        by_kernel = jax.lax.platform_dependent(
            x,
            gradient,
            by_kernel,
            cpu=lambda x, gradient, _: _row_by_row(x, gradient, k),
            default=lambda x, gradient, by_kernel: by_kernel,
        )
    return by_x, by_kernel


convolve.defvjp(_forward, _backward)


def _row_by_row(x, gradient, k):
    """x [B, H, W, C], gradient [B, H, W, F] → that by the kernel, [k, k, C, F]: for each row of
    the images one product with the gradients moved by every offset; both stay in the cache."""
    pad, height, width = k // 2, *x.shape[1:3]
    padded = jnp.pad(gradient, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    offsets = range(k - 1, -1, -1)

    def add_row(y, total):
        rows = jax.lax.dynamic_slice_in_dim(padded, y, k, axis=1)
        moved = [rows[:, i, j : j + width] for i in offsets for j in offsets]
        moved = jnp.concatenate(moved, -1)  # [B, W, k · k · F]
        row = jax.lax.dynamic_index_in_dim(x, y, axis=1, keepdims=False)  # [B, W, C]
        pixels = (((0, 1), (0, 1)), ((), ()))
        return total + jax.lax.dot_general(row, moved, pixels, preferred_element_type=jnp.float32)

    features = gradient.shape[-1]
    total = jnp.zeros((x.shape[-1], k * k * features), jnp.float32)
    total = jax.lax.fori_loop(0, height, add_row, total)
    return total.reshape(-1, k, k, features).transpose(1, 2, 0, 3).astype(x.dtype)
