"""The scale- and shift-invariant loss (Depth Anything, eq. 1–4; MiDaS, arXiv 1907.01341).

Shapes: B images, H W pixels, P = H * W.
"""

import jax.numpy as jnp

from dav.objectives.median import masked_median

# A constant map has no spread; dividing by this instead leaves its loss and gradients finite.
MIN_SPREAD = 1e-6


def affine_invariant(prediction, target, valid):
    """Mean absolute difference of the two normalised maps, per image.

    prediction, target float32 [B, H, W] disparity, valid bool [B, H, W]. Returns loss [B] and
    usable bool [B]: False where the target is constant or nothing is valid, and the loss then is
    0 and says nothing. The mean is over valid pixels only, where the paper writes 1/(HW); the
    gradient flows through the prediction's own shift and scale (the paper does not say).
    """
    prediction, target, valid = (x.reshape(x.shape[0], -1) for x in (prediction, target, valid))
    # What stands in invalid pixels, be it NaN, must reach neither the loss nor its gradient.
    prediction, target = (jnp.where(valid, x, 0.0) for x in (prediction, target))
    target_shift, target_scale = shift_and_scale(target, valid)
    usable = target_scale > MIN_SPREAD
    target = _normalise(target, target_shift, target_scale)
    prediction = _normalise(prediction, *shift_and_scale(prediction, valid))
    error = masked_mean(jnp.abs(prediction - target), valid)
    return jnp.where(usable, error, 0.0), usable


def shift_and_scale(disparity, valid):
    """Median t [B] and mean absolute deviation from it s [B], over the valid pixels [B, P]."""
    shift = masked_median(disparity, valid)
    return shift, masked_mean(jnp.abs(disparity - shift[:, None]), valid)


def masked_mean(x, valid):
    """Mean of x [B, P] over valid → [B]; 0 where nothing is valid."""
    count = jnp.maximum(jnp.sum(valid, axis=-1), 1)
    return jnp.sum(jnp.where(valid, x, 0.0), axis=-1) / count


def _normalise(x, shift, scale):
    return (x - shift[:, None]) / jnp.maximum(scale, MIN_SPREAD)[:, None]
