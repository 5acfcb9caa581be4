"""Strong perturbations of unlabelled images: colour jitter, grayscale, Gaussian blur.

The paper names colour jitter and blur without strengths; these are UniMatch's, by the same
authors, with torchvision's operators. Images are RGB in [0, 1], float32 [B, H, W, 3].
"""

import jax
import jax.numpy as jnp

JITTER_PROBABILITY = 0.8
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.5, 0.5, 0.5, 0.25
GRAY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA_PX = (0.1, 2.0)
BLUR_RADIUS_PX = 6  # three of the largest sigma
LUMA = (0.299, 0.587, 0.114)


def perturb(key, images):
    """Every image with its own draws; shape, type and range stay."""
    jitter_key, gray_key, blur_key, sigma_key, use_key = jax.random.split(key, 5)
    batch = images.shape[0]
    jittered = color_jitter(jitter_key, images)
    images = _where(jax.random.bernoulli(use_key, JITTER_PROBABILITY, (batch,)), jittered, images)
    gray = jax.random.bernoulli(gray_key, GRAY_PROBABILITY, (batch,))
    images = _where(gray, jnp.broadcast_to(_luma(images), images.shape), images)
    low, high = BLUR_SIGMA_PX
    sigma_px = jax.random.uniform(sigma_key, (batch,), minval=low, maxval=high)
    blur = jax.random.bernoulli(blur_key, BLUR_PROBABILITY, (batch,))
    return _where(blur, gaussian_blur(images, sigma_px), images)


def color_jitter(key, images):
    """Brightness, contrast, saturation and hue by random factors, in random order."""
    order_key, factor_key = jax.random.split(key)
    batch = images.shape[0]
    strength = jnp.array([BRIGHTNESS, CONTRAST, SATURATION, HUE])
    middle = jnp.array([1.0, 1.0, 1.0, 0.0])
    draws = jax.random.uniform(factor_key, (batch, 4), minval=-1.0, maxval=1.0)
    factors = middle + strength * draws
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    order = jax.vmap(lambda k: jax.random.permutation(k, 4))(jax.random.split(order_key, batch))
    for turn in range(4):
        before = images
        for index, operation in enumerate(operations):
            adjusted = operation(before, factors[:, index, None, None, None])
            images = _where(order[:, turn] == index, adjusted, images)
    return images


def adjust_brightness(images, factor):
    """Blends with black; factor [B, 1, 1, 1], 1 changes nothing."""
    return jnp.clip(images * factor, 0, 1)


def adjust_contrast(images, factor):
    """Blends with the image's mean grey."""
    mean = jnp.mean(_luma(images), axis=(1, 2, 3), keepdims=True)
    return jnp.clip(mean + (images - mean) * factor, 0, 1)


def adjust_saturation(images, factor):
    """Blends with the image in grey."""
    gray = _luma(images)
    return jnp.clip(gray + (images - gray) * factor, 0, 1)


def adjust_hue(images, turns):
    """Rotates the hue by `turns` of the full circle, through HSV."""
    value = jnp.max(images, axis=-1)
    chroma = value - jnp.min(images, axis=-1)
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (sector / 6 + turns[..., 0]) % 1.0
    # Channel n of a colour with hue h in sixths: value − chroma · max(0, min(k, 4 − k, 1)).
    k = (jnp.array([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6.0
    ramp = jnp.clip(jnp.minimum(k, 4 - k), 0, 1)
    return value[..., None] - chroma[..., None] * ramp


def gaussian_blur(images, sigma_px):
    """Separable blur with one sigma [B] per image; edges are reflected."""
    offsets = jnp.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1)
    weights = jnp.exp(-0.5 * (offsets / sigma_px[:, None]) ** 2)
    weights = weights / jnp.sum(weights, axis=1, keepdims=True)  # [B, taps]
    return _blur_axis(_blur_axis(images, weights, 1), weights, 2)


def _blur_axis(images, weights, axis):
    size = images.shape[axis]
    pad = [(0, 0)] * 4
    pad[axis] = (BLUR_RADIUS_PX, BLUR_RADIUS_PX)
    padded = jnp.pad(images, pad, mode="reflect")
    shifted = (
        weights[:, tap, None, None, None] * jax.lax.slice_in_dim(padded, tap, tap + size, axis=axis)
        for tap in range(weights.shape[1])
    )
    return sum(shifted)


def _luma(images):
    return jnp.sum(images * jnp.array(LUMA), axis=-1, keepdims=True)


def _where(condition, yes, no):
    return jnp.where(condition[:, None, None, None], yes, no)
