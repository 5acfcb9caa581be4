"""Depth metrics, per image over its valid pixels (KITTI and NYU usage since Eigen, 2014).

Shapes: B images, H W pixels. depth_m is the truth, predicted_m the aligned prediction, in metres.
"""

import jax.numpy as jnp


def abs_rel(predicted_m, depth_m, valid):
    """Mean of |predicted − true| / true → [B]."""
    depth_m = jnp.where(valid, depth_m, 1.0)
    return _mean(jnp.abs(predicted_m - depth_m) / depth_m, valid)


def delta1(predicted_m, depth_m, valid):
    """Share of pixels with max(true / predicted, predicted / true) < 1.25 → [B]."""
    depth_m, predicted_m = (jnp.where(valid, x, 1.0) for x in (depth_m, predicted_m))
    ratio = jnp.maximum(depth_m / predicted_m, predicted_m / depth_m)
    return _mean((ratio < 1.25).astype(jnp.float32), valid)


def _mean(x, valid):
    count = jnp.maximum(jnp.sum(valid, axis=(1, 2)), 1)
    return jnp.sum(jnp.where(valid, x, 0.0), axis=(1, 2)) / count
