"""The scale-invariant log loss of metric depth (Eigen et al., arXiv 1406.2283, eq. 4).

No recipe minimises it yet: all of them train relative depth. It is here, and tested, for
fine-tuning to metres.

Shapes: B images, H W pixels, P = H * W.
"""

import jax.numpy as jnp

from dav.objectives.affine_invariant import masked_mean, where_usable

# Where a sigmoid has run out of float32 the prediction is 0, which has no logarithm. ZoeDepth adds
# the same number to every depth; a floor leaves all others as they are.
MIN_PREDICTED_M = 1e-7


def scale_invariant_log(predicted_m, depth_m, valid, *, variance_weight, factor=1.0):
    """factor · sqrt(mean(g²) − λ mean(g)²) of g = log predicted − log true: its sum over the images
    with valid pixels, and their number.

    predicted_m, depth_m float32 [B, H, W] metres, valid bool [B, H, W]; returns float32 [] twice.
    variance_weight is λ in [0, 1]: at 1 a common factor of the prediction costs nothing.
    Depth Anything V2 has λ = 0.5, factor 1; ZoeDepth, and with it V1's metric models, λ = 0.85,
    factor 10 (with the unbiased variance; ours is the formula as it stands).

    Both pool the pixels of the whole batch under one root. Ours is per image, so that shards and
    parts of a batch add up. Predictions below MIN_PREDICTED_M are taken as that. A depth that is
    not positive, or any value that is not finite, in a valid pixel makes the sum not finite.
    """
    predicted_m, depth_m, valid = (x.reshape(x.shape[0], -1) for x in (predicted_m, depth_m, valid))
    predicted_m, depth_m = (jnp.where(valid, x, 1.0) for x in (predicted_m, depth_m))
    g = jnp.log(jnp.maximum(predicted_m, MIN_PREDICTED_M)) - jnp.log(depth_m)
    mean = masked_mean(g, valid)
    # mean(g²) − λ mean(g)² without the difference of two large numbers.
    variance = masked_mean((g - mean[:, None]) ** 2, valid)
    error = factor * _root(variance + (1 - variance_weight) * mean**2)
    usable = valid.any(axis=-1)
    return jnp.sum(where_usable(usable, error)), jnp.sum(usable, dtype=jnp.float32)


def _root(x):
    """Square root with gradient 0 at 0, where a perfect prediction has no better direction."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, x)))
