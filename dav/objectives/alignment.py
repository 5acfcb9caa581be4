"""Least-squares alignment of relative disparity to measured depth (MiDaS protocol).

Shapes: B images, H W pixels.
"""

import jax.numpy as jnp


def align_to_depth(disparity, depth_m, valid, *, max_depth_m):
    """Fits scale · disparity + shift to 1 / depth per image and returns the depth it means.

    disparity, depth_m float32 [B, H, W], valid bool. The fitted disparity is clipped at
    1 / max_depth_m after the fit, so that the result lies in (0, max_depth_m] metres.
    """
    target = 1 / jnp.where(valid, depth_m, 1.0)
    scale, shift = fit_scale_and_shift(disparity, target, valid)
    aligned = scale[:, None, None] * disparity + shift[:, None, None]
    return 1 / jnp.maximum(aligned, 1 / max_depth_m)


def fit_scale_and_shift(x, y, valid):
    """Least-squares scale and shift [B] with scale · x + shift ≈ y over valid pixels.

    A constant x gets scale 0 and the mean of y as shift. Sums are taken about the mean, which
    keeps float32 as good as the textbook normal equations in float64.
    """
    x_mean, y_mean = _mean(x, valid), _mean(y, valid)
    dx, dy = x - x_mean, y - y_mean
    variance = _mean(dx * dx, valid)
    flat = variance <= 1e-12 * jnp.maximum(x_mean * x_mean, 1e-12)
    scale = jnp.where(flat, 0.0, _mean(dx * dy, valid) / jnp.where(flat, 1.0, variance))
    return scale[:, 0, 0], (y_mean - scale * x_mean)[:, 0, 0]


def _mean(x, valid):
    count = jnp.maximum(jnp.sum(valid, axis=(1, 2), keepdims=True), 1)
    return jnp.sum(jnp.where(valid, x, 0.0), axis=(1, 2), keepdims=True) / count
