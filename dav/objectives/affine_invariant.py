"""The scale- and shift-invariant loss (Depth Anything, eq. 1–4; MiDaS, arXiv 1907.01341, eq. 5–8).

Every map is centred on the median of its valid pixels and divided by their mean absolute deviation
from it. Shapes: B images, H W pixels, P = H * W.
"""

import jax
import jax.numpy as jnp

from dav.objectives.median import masked_median, smallest

# A map whose mean absolute deviation is this share of its median, or less, is a constant as far
# as float32 can tell: what is left is rounding. Two units in the last place.
RESOLUTION = 2.0**-22


def affine_invariant(prediction, target, valid, *, trim=0.0, mean_over_kept=True):
    """Mean absolute difference of the two normalised maps: its sum over the images that have a
    target, and their number.

    prediction, target float32 [B, H, W] disparity, valid bool [B, H, W]; returns float32 [] twice.
    An image whose target is constant or has no valid pixel is not counted and adds exactly 0, to
    the gradient as well; one pixel is such a constant, so no other floor is needed. What stands
    in invalid pixels has no influence. A value that is not finite in a valid pixel makes the sum
    not finite.

    trim: share of the valid pixels, those with the largest loss, that is ignored: floor(trim · n)
    of n, ties share what is left. Depth Anything V2 (section 5.2) ignores 0.1 and takes the mean
    over the kept pixels; MiDaS (L_ssitrim) ignores 0.2 and divides by all valid ones, which is
    mean_over_kept=False. Its additional factor 1/2 is left to the weight of the term.

    Our choices: the mean is over the valid pixels, where the paper writes 1/(HW); the gradient
    flows through the prediction's own shift and scale, also to pixels that are trimmed.
    """
    error, usable = per_image(prediction, target, valid, trim=trim, mean_over_kept=mean_over_kept)
    return jnp.sum(error), jnp.sum(usable, dtype=jnp.float32)


def per_image(prediction, target, valid, *, trim=0.0, mean_over_kept=True):
    """The loss [B] of each image, 0 where it has no target, and usable bool [B]."""
    prediction, target, valid = (x.reshape(x.shape[0], -1) for x in (prediction, target, valid))
    target, usable = normalise(jax.lax.stop_gradient(target), valid)
    prediction, _ = normalise(prediction, valid)
    difference = jnp.abs(prediction - target)
    if trim:
        error = _trimmed_mean(difference, valid, trim, mean_over_kept)
    else:
        error = masked_mean(difference, valid)
    return where_usable(usable, error), usable


def normalise(x, valid):
    """(x − median) / mean absolute deviation, per map, x float32 and valid bool [B, P].

    Returns the map, 0 in invalid pixels, and bool [B]: False where the map is constant or has no
    valid pixel. Such a map is only centred, so that its gradient stays moderate. One value that is
    not finite makes the whole map NaN, or a pixel without neighbours would hide it from gradients.
    """
    # What stands in invalid pixels, be it NaN, must reach neither the map nor its gradient.
    x = jnp.where(valid, x, 0.0)
    shift = masked_median(x, valid)
    centred = jnp.where(valid, x - shift[:, None], 0.0)
    spread = masked_mean(jnp.abs(centred), valid)
    usable = ~(spread <= RESOLUTION * jnp.abs(shift)) & ~(spread < jnp.finfo(jnp.float32).tiny)
    spread = jnp.where(usable, spread, 1.0)
    size = jax.lax.stop_gradient(spread)
    # Divided by the plain number first: the gradient of one division by the spread would hold its
    # square, which leaves float32 beyond 1e±19. The second divisor is 1 and carries the gradient;
    # of a spread that is not finite it is NaN.
    return centred / size[:, None] / (spread / size)[:, None], usable


def where_usable(usable, error):
    """error [B] where usable, else 0; but an error that is not finite is never hidden."""
    return jnp.where(usable | ~jnp.isfinite(error), error, 0.0)


def masked_mean(x, valid):
    """Mean of x [B, P] over valid → [B]; 0 where nothing is valid."""
    count = jnp.maximum(jnp.sum(valid, axis=-1), 1)
    return jnp.sum(jnp.where(valid, x, 0.0), axis=-1) / count


def _trimmed_mean(x, valid, trim, mean_over_kept):
    count = jnp.sum(valid, axis=-1)
    kept = count - jnp.floor(jnp.float32(trim) * count).astype(count.dtype)
    weights = smallest(x, valid, kept)
    divisor = jnp.maximum(kept if mean_over_kept else count, 1)
    return jnp.sum(weights * jnp.where(valid, x, 0.0), axis=-1) / divisor
