"""CutMix of unlabelled images and its loss (Depth Anything, eq. 5–8).

Each image is cut into its neighbour: the first into the second, the last into the first.
Shapes: B images, H W pixels.
"""

import jax
import jax.numpy as jnp

from dav.objectives.affine_invariant import per_image

# The paper states the probability; the box follows the same authors' UniMatch.
PROBABILITY = 0.5
AREA_SHARE = (0.02, 0.4)
ASPECT_RATIO = (0.3, 1 / 0.3)  # height / width
DRAWS = 256  # a box is redrawn until it fits; so many misses in a row practically do not happen


def draw_masks(key, shape):
    """Boxes as bool [B, H, W] for shape (B, H, W); no pixel for half of the images."""
    batch, height, width = shape
    box_key, use_key = jax.random.split(key)
    top, left, rows, columns = draw_boxes(box_key, batch, height, width)
    use = jax.random.bernoulli(use_key, PROBABILITY, (batch,))
    y, x = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    top, left, rows, columns, use = (v[:, None, None] for v in (top, left, rows, columns, use))
    return use & (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)


def draw_boxes(key, batch, height, width):
    """Returns int32 top, left, rows, columns [B]: the first of DRAWS boxes that fits inside.

    The area is drawn once, aspect and corner anew each time; else small boxes would win.
    """
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
    low, high = AREA_SHARE
    area = height * width * jax.random.uniform(area_key, (batch, 1), minval=low, maxval=high)
    shape = (batch, DRAWS)
    ratio = jax.random.uniform(ratio_key, shape, minval=ASPECT_RATIO[0], maxval=ASPECT_RATIO[1])
    rows = jnp.sqrt(area * ratio).astype(jnp.int32)
    columns = jnp.sqrt(area / ratio).astype(jnp.int32)
    top = jax.random.randint(top_key, shape, 0, height)
    left = jax.random.randint(left_key, shape, 0, width)
    fits = (top + rows <= height) & (left + columns <= width)
    first = jnp.argmax(fits, axis=1)[:, None]
    return tuple(jnp.take_along_axis(v, first, axis=1)[:, 0] for v in (top, left, rows, columns))


def mix(images, masks):
    """images [B, H, W, 3]: inside its mask each shows its neighbour, outside itself."""
    return jnp.where(masks[..., None], neighbour(images), images)


def neighbour(x):
    """What is cut into each image of a batch, of anything [B, ...] that belongs to the images."""
    return jnp.roll(x, 1, axis=0)


def cutmix_loss(prediction, target, valid, other, other_valid, masks, *, trim=0.0):
    """The affine-invariant loss inside and outside each mask, weighted by area: its sum over the
    images that have a target in either, and their number.

    prediction float32 [B, H, W] is the student's for the mixed image; target float32 and valid
    bool [B, H, W] the teacher's for the clean image, which is seen outside of masks bool [B, H, W];
    other and other_valid the same for the neighbour, seen inside. Returns float32 [] twice.

    Every region is normalised on its own, for both (eq. 6–7), and trimmed on its own (our choice;
    V2's paper speaks of the sample). Weights are shares of all pixels (eq. 8); an empty or
    constant region adds 0, and without masks this is the plain loss.
    """
    # Both regions as one batch: their medians are then found in the same passes.
    error, usable = per_image(
        jnp.concatenate([prediction, prediction]),
        jnp.concatenate([other, target]),
        jnp.concatenate([other_valid & masks, valid & ~masks]),
        trim=trim,
    )
    inside, outside = jnp.split(error, 2)
    share = jnp.mean(masks, axis=(1, 2))
    usable = jnp.logical_or(*jnp.split(usable, 2))
    return jnp.sum(share * inside + (1 - share) * outside), jnp.sum(usable, dtype=jnp.float32)
