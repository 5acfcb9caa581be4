"""Multi-scale gradient matching (MiDaS, arXiv 1907.01341, eq. 11; Depth Anything V2, section 5.2).

Shapes: B images, H W pixels.
"""

import jax
import jax.numpy as jnp

from dav.objectives.affine_invariant import normalise, where_usable


def gradient_matching(prediction, target, valid, *, scales=4):
    """Σ_k (1/n_k) Σ_i |∇x R_i| + |∇y R_i| of the difference R of the two normalised maps: its sum
    over the images that have a target, and their number.

    prediction, target float32 [B, H, W] disparity, valid bool [B, H, W]; returns float32 [] twice.
    Scale k = 0 … scales − 1 keeps every 2^k-th pixel of the maps, which are normalised once, as for
    the affine-invariant loss (whose weight to this one is 1 : 2 in V2, 1 : 0.5 in MiDaS). ∇ is the
    difference of two neighbours of the scale, counted only where both are valid.

    MiDaS has four scales, V2 does not say. Our choices: n_k is the number of valid pixels of the
    scale, where MiDaS writes one M; an image without two valid neighbours at any scale is not
    counted, as one with a constant target.
    """
    shape = valid.shape
    flat_prediction, flat_target, flat_valid = (
        x.reshape(shape[0], -1) for x in (prediction, target, valid)
    )
    flat_target, usable = normalise(jax.lax.stop_gradient(flat_target), flat_valid)
    flat_prediction, _ = normalise(flat_prediction, flat_valid)
    difference = (flat_prediction - flat_target).reshape(shape)
    total, pairs = jnp.zeros(shape[0]), jnp.zeros(shape[0], jnp.int32)
    for k in range(scales):
        step = 2**k
        kept = valid[:, ::step, ::step]
        slopes, more = _slopes(difference[:, ::step, ::step], kept)
        total += slopes / jnp.maximum(jnp.sum(kept, axis=(1, 2)), 1)
        pairs += more
    usable &= pairs > 0
    return jnp.sum(where_usable(usable, total)), jnp.sum(usable, dtype=jnp.float32)


def _slopes(x, valid):
    """Sum of |differences| of valid neighbours along both axes of x [B, H, W], and their number."""
    total, pairs = 0.0, 0
    for axis in (1, 2):
        size = x.shape[axis]
        ahead, behind = (
            (jax.lax.slice_in_dim(x, a, b, axis=axis), jax.lax.slice_in_dim(valid, a, b, axis=axis))
            for a, b in ((1, size), (0, size - 1))
        )
        both = ahead[1] & behind[1]
        total += jnp.sum(jnp.where(both, jnp.abs(ahead[0] - behind[0]), 0.0), axis=(1, 2))
        pairs += jnp.sum(both, axis=(1, 2))
    return total, pairs
