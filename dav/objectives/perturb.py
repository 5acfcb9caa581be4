"""Strong perturbations of unlabelled images: colour jitter, grayscale, Gaussian blur.

Depth Anything (section 3.2) names colour jitter and Gaussian blur and gives no strengths. What is
here beyond that, grayscale and all numbers, we took from UniMatch by the same first author. The
draws are those of torchvision's ColorJitter, the operators those of its functions on tensors
within rounding. UniMatch blurs with Pillow, which approximates the Gaussian by three box blurs and
repeats the edge's pixels where torchvision reflects them: inside, photographs differ from it by
about 1/255, and noise, the worst there is, by the figures of tests/objectives/operator_parity.py.

Shapes: B images, H W pixels. Images are RGB in [0, 1], float32 [B, H, W, 3]; inside they are
planes, three float32 [B, H, W], which vectorise where a last axis of 3 does not. Every image is
worked on by itself, and no step looks at a whole batch: sharded batches stay where they are.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

JITTER_PROBABILITY = 0.8
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.5, 0.5, 0.5, 0.25
GRAY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA_PX = (0.1, 2.0)
BLUR_RADIUS_PX = 6  # three of the largest sigma: torchvision's kernel_size of 13
LEAST_SIGMA_PX = 1e-3  # its neighbours weigh exactly 0 in float32
LUMA = (0.299, 0.587, 0.114)  # Pillow's; torchvision's red is 0.2989

# The operations of a jitter, as `order` numbers them.
TO_BLACK, TO_MEAN_GRAY, TO_GRAY, HUE_ROTATION = range(4)


@functools.partial(
    jax.tree_util.register_dataclass,
    meta_fields=(),
    data_fields=("order", "factors", "gray", "sigma_px"),
)
@dataclass(frozen=True)
class Draws:
    """What happens to each image of a batch."""

    order: jax.Array  # int32 [B, 4]: the operation at each place of the jitter
    factors: jax.Array  # float32 [B, 4] by operation; (1, 1, 1, 0) changes nothing
    gray: jax.Array  # bool [B]
    sigma_px: jax.Array  # float32 [B]; 0 does not blur


def perturb(key, images):
    """Every image with its own draws. Images float32 [B, H, W, 3] in [0, 1] → the same."""
    if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"perturb takes floating [B, H, W, 3] in [0, 1], not {images.dtype} {images.shape}: "
            "divide uint8 images by 255 first"
        )
    return apply(images, draw(key, images.shape[0]))


def draw(key, batch):
    """Draws for `batch` images, every number independent of all others."""
    order_key, factor_key, use_key, gray_key, sigma_key, blur_key = jax.random.split(key, 6)
    middle = jnp.array([1.0, 1.0, 1.0, 0.0])
    strength = jnp.array([BRIGHTNESS, CONTRAST, SATURATION, HUE])
    share = jax.random.uniform(factor_key, (batch, 4), minval=-1.0, maxval=1.0)
    use = jax.random.bernoulli(use_key, JITTER_PROBABILITY, (batch, 1))
    low, high = BLUR_SIGMA_PX
    sigma_px = jax.random.uniform(sigma_key, (batch,), minval=low, maxval=high)
    return Draws(
        order=jnp.argsort(jax.random.uniform(order_key, (batch, 4)), axis=1),
        factors=jnp.where(use, middle + strength * share, middle),
        gray=jax.random.bernoulli(gray_key, GRAY_PROBABILITY, (batch,)),
        sigma_px=jnp.where(jax.random.bernoulli(blur_key, BLUR_PROBABILITY, (batch,)), sigma_px, 0),
    )


def apply(images, draws):
    """Jitter, then grayscale, then blur, as drawn. Images float32 [B, H, W, 3] → the same."""
    planes = tuple(images[..., channel] for channel in range(3))
    planes = color_jitter(planes, draws.order, draws.factors)
    planes = grayscale(planes, draws.gray)
    return jnp.stack(gaussian_blur(planes, draws.sigma_px), axis=-1)


def color_jitter(planes, order, factors):
    """Brightness, contrast, saturation and hue, each once, in each image's own order.

    order int32 [B, 4] and factors float32 [B, 4] as in Draws. The rotation of the hue is the
    dearest operation, and the other three are blends: so all images go through three blends, one
    rotation and three blends, and those that are not an image's turn leave it exactly as it is.
    """
    places = jnp.arange(4)
    hue_place = jnp.argmax(order == HUE_ROTATION, axis=1)[:, None]
    in_order = jnp.take_along_axis(factors, order, axis=1)
    before = jnp.where(places < hue_place, in_order, 1)
    after = jnp.where(places > hue_place, in_order, 1)

    # A scan and not a loop in Python: the compiler would merge the blends and compute each again
    # for all that read it, at a cost that grows exponentially.
    def one(planes, operation_and_factor):
        return blend(planes, *operation_and_factor), None

    planes, _ = jax.lax.scan(one, planes, (order.T[:3], before.T[:3]))
    planes = rotate_hue(planes, factors[:, HUE_ROTATION])
    planes, _ = jax.lax.scan(one, planes, (order.T[1:], after.T[1:]))
    return planes


def blend(planes, operation, factor):
    """Brightness, contrast or saturation of each image, by `operation` int32 [B].

    Clips factor · image + (1 − factor) · base to [0, 1]; the base is black, the mean of the image's
    luma, or the luma itself. factor float32 [B], ≥ 0; 1 changes nothing.
    """
    operation, factor = _per_image(operation), _per_image(factor)
    gray = _luma(planes)
    mean = jnp.mean(gray, axis=(1, 2), keepdims=True)
    base = jnp.where(operation == TO_MEAN_GRAY, mean, jnp.where(operation == TO_GRAY, gray, 0.0))
    return tuple(jnp.clip(factor * plane + (1 - factor) * base, 0, 1) for plane in planes)


def rotate_hue(planes, turns):
    """Rotates the hue of each image by `turns` [B] of the full circle, as through HSV.

    Without HSV's division by the chroma: everything here is the hue in sixths times the chroma.
    """
    turns = _per_image(turns)
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    sector = jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))
    within = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
    hue = within + chroma * (sector + 6 * (turns % 1.0))
    hue = jnp.where(hue >= 6 * chroma, hue - 6 * chroma, hue)  # in [−chroma, 6 · chroma)

    def channel(start):
        # HSV's value − chroma · clip(min(k, 4 − k), 0, 1) with k = (start + hue) mod 6, the ramp
        # written so that it repeats by itself over the range that k has here.
        k = hue + start * chroma
        ramp = 2 * chroma - jnp.abs(jnp.abs(k - 5 * chroma) - 3 * chroma)
        return value - jnp.clip(ramp, 0, chroma)

    rotated = (channel(start) for start in (5, 3, 1))
    return tuple(jnp.where(turns == 0, *pair) for pair in zip(planes, rotated, strict=True))


def grayscale(planes, use):
    """Luma in all three planes of the images in `use`, bool [B]."""
    gray = _luma(planes)
    return tuple(jnp.where(_per_image(use), gray, plane) for plane in planes)


def gaussian_blur(planes, sigma_px):
    """Separable blur with one sigma [B] per image; edges are reflected. Sigma 0 changes nothing."""
    offsets = jnp.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1)
    sigma_px = jnp.maximum(sigma_px, LEAST_SIGMA_PX)[:, None]
    weights = jnp.exp(-0.5 * (offsets / sigma_px) ** 2)
    weights = weights / jnp.sum(weights, axis=1, keepdims=True)  # [B, taps]
    return tuple(_blur_axis(_blur_axis(plane, weights, 1), weights, 2) for plane in planes)


def _blur_axis(plane, weights, axis):
    size = plane.shape[axis]
    pad = [(0, 0)] * 3
    pad[axis] = (BLUR_RADIUS_PX, BLUR_RADIUS_PX)
    # What comes before is computed once, not at every tap.
    padded = jax.lax.optimization_barrier(jnp.pad(plane, pad, mode="reflect"))
    return sum(
        _per_image(weights[:, tap]) * jax.lax.slice_in_dim(padded, tap, tap + size, axis=axis)
        for tap in range(weights.shape[1])
    )


def _luma(planes):
    return sum(weight * plane for weight, plane in zip(LUMA, planes, strict=True))


def _per_image(values):
    return values[:, None, None]
