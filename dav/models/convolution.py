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
    if stride == 1 and k == 2 * pad + 1 and ambient_mesh(x).size <= 1:
        by_kernel = jax.lax.platform_dependent(
            x,
            gradient,
            by_kernel,
            cpu=lambda x, gradient, _: _by_products(x, gradient, k),
            default=lambda x, gradient, by_kernel: by_kernel,
        )
    return by_x, by_kernel


convolve.defvjp(_forward, _backward)


def _by_products(x, gradient, k):
    """x [B, H, W, C], gradient [B, H, W, F] → that by the kernel, [k, k, C, F]."""
    if k == 1:
        pixels = (x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1]))
        product = jnp.einsum("nc,nf->cf", *pixels, preferred_element_type=jnp.float32)
        return product[None, None].astype(x.dtype)
    if x.shape[-1] >= gradient.shape[-1]:
        return _correlate(x, gradient, k).astype(x.dtype)
    return _correlate(gradient, x, k)[::-1, ::-1].swapaxes(2, 3).astype(x.dtype)


def _correlate(x, y, k):
    """x [B, H, W, C] at every offset from y [B, H, W, D], summed over all pixels, float32
    [k, k, C, D]. Row by row of y, so that all stays in the cache, and as products of matrices that
    lie as they are needed: x is transposed once, and it is y, the narrower one, that is moved."""
    pad, (batch, height, width, channels) = k // 2, x.shape
    columns = x.transpose(1, 3, 0, 2).reshape(height, channels, batch * width)
    columns = jnp.pad(columns, ((pad, pad), (0, 0), (0, 0)))
    y = jnp.pad(y, ((0, 0), (0, 0), (pad, pad), (0, 0)))

    def add_row(index, totals):
        rows = jax.lax.dynamic_slice_in_dim(columns, index, k).reshape(k * channels, -1)
        row = jax.lax.dynamic_index_in_dim(y, index, axis=1, keepdims=False)
        moved = (row[:, j : j + width].reshape(batch * width, -1) for j in reversed(range(k)))
        product = functools.partial(jnp.dot, preferred_element_type=jnp.float32)
        return [total + product(rows, one) for total, one in zip(totals, moved, strict=True)]

    nothing = jnp.zeros((k * channels, y.shape[-1]), jnp.float32)
    totals = jax.lax.fori_loop(0, height, add_row, [nothing] * k)
    return jnp.stack([total.reshape(k, channels, -1) for total in totals], axis=1)
