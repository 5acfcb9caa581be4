"""Strong perturbations: every operator against an independent reference, then the draws."""

import colorsys
import functools

import cv2
import jax
import numpy as np
import pytest

from dav.objectives import perturb

LUMA = np.array([0.299, 0.587, 0.114])

apply = jax.jit(perturb.perturb)
blur = jax.jit(perturb.gaussian_blur)


def random_images(seed, shape=(4, 9, 12, 3)):
    """Random colours with black, white, gray and saturated pixels among them."""
    images = np.random.default_rng(seed).random(shape, np.float32)
    images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = 0, 1, 0.5
    images[:, 1, :3] = np.eye(3)
    images[:, 1, 3:6] = 1 - np.eye(3)
    return images


def per_image(values):
    return np.array(values, np.float32)[:, None, None, None]


def rotated_hue(pixel, turns):
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(x) for x in pixel))
    return colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)


@functools.cache
def applied_to_edges():
    """What 400 copies of an image of two colours that meet in the middle show: gray, blurred and
    jittered, bool [400] each."""
    image = np.empty((8, 8, 3), np.float32)
    image[:, :4], image[:, 4:] = (0.2, 0.5, 0.3), (0.6, 0.3, 0.45)
    found = np.asarray(apply(jax.random.key(5), np.repeat(image[None], 400, axis=0)))
    gray = np.ptp(found, axis=-1).max(axis=(1, 2)) < 1e-6
    blurred = np.abs(found[:, :, 3] - found[:, :, 0]).max(axis=(1, 2)) > 1e-5
    # Graying keeps the luma, and blur hardly moves it as far from the edge as this.
    jittered = np.abs((found[:, 0, 0] - image[0, 0]) @ LUMA) > 3e-3
    return gray, blurred, jittered


def test_brightness_multiplies_and_clips():
    images, factor = random_images(0), per_image([0.5, 0.9, 1.0, 1.5])
    found = perturb.adjust_brightness(images, factor)
    np.testing.assert_allclose(found, np.clip(images * factor, 0, 1), atol=1e-6)


def test_contrast_blends_with_the_mean_luma_of_the_image():
    images, factor = random_images(1), per_image([0.5, 0.9, 1.0, 1.5])
    mean = (images.astype(np.float64) @ LUMA).mean(axis=(1, 2))[:, None, None, None]
    expected = np.clip(factor * images + (1 - factor) * mean, 0, 1)
    np.testing.assert_allclose(perturb.adjust_contrast(images, factor), expected, atol=1e-6)


def test_saturation_blends_with_the_luma_of_the_pixel():
    images, factor = random_images(2), per_image([0.5, 0.9, 1.0, 1.5])
    gray = (images.astype(np.float64) @ LUMA)[..., None]
    expected = np.clip(factor * images + (1 - factor) * gray, 0, 1)
    np.testing.assert_allclose(perturb.adjust_saturation(images, factor), expected, atol=1e-6)


def test_hue_equals_colorsys_pixel_by_pixel():
    images, turns = random_images(3), [-0.25, -0.1, 0.0, 0.25]
    expected = [
        [[rotated_hue(pixel, turn) for pixel in row] for row in image]
        for image, turn in zip(images, turns, strict=True)
    ]
    np.testing.assert_allclose(perturb.adjust_hue(images, per_image(turns)), expected, atol=1e-5)


@pytest.mark.parametrize("sigma_px", [0.1, 0.35, 1.0, 1.7, 2.0])
def test_blur_equals_opencvs(sigma_px):
    images = random_images(4, (3, 15, 18, 3))
    expected = [
        cv2.GaussianBlur(image, (13, 13), sigma_px, borderType=cv2.BORDER_REFLECT_101)
        for image in images
    ]
    found = blur(images, np.full(3, sigma_px, np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blur_uses_each_images_own_sigma():
    images = np.repeat(random_images(5, (1, 15, 18, 3)), 3, axis=0)
    sigmas = np.array([0.3, 1.0, 2.0], np.float32)
    together = np.asarray(blur(images, sigmas))
    for index in range(3):
        alone = blur(images, np.full(3, sigmas[index]))
        np.testing.assert_allclose(together[index], alone[0], atol=1e-6)
    assert np.diff(together.std(axis=(1, 2, 3))).max() < -0.01  # ever smoother


def test_perturbed_images_keep_shape_type_and_range():
    images = random_images(6, (400, 8, 8, 3))
    found = apply(jax.random.key(0), images)
    assert found.shape == images.shape and found.dtype == np.float32
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6
    assert (np.asarray(found) != images).any(axis=(1, 2, 3)).mean() > 0.8


def test_white_and_black_stay_in_range():
    images = np.repeat(np.array([0, 1], np.float32), 200)[:, None, None, None]
    found = apply(jax.random.key(1), np.broadcast_to(images, (400, 8, 8, 3)))
    assert found.min() >= 0 and found.max() <= 1 + 1e-6


def test_one_key_gives_one_result():
    images = random_images(7, (400, 8, 8, 3))
    first, again, other = (np.asarray(apply(jax.random.key(k), images)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_images_of_one_batch_get_different_draws():
    image = np.random.default_rng(8).random((1, 3, 3, 3), np.float32)
    found = perturb.color_jitter(jax.random.key(2), np.repeat(image, 300, axis=0))
    assert len(np.unique(np.asarray(found).reshape(300, -1), axis=0)) == 300


def test_a_fifth_is_gray_half_is_blurred_and_four_fifths_are_jittered():
    gray, blurred, jittered = applied_to_edges()
    assert 0.12 < gray.mean() < 0.28
    assert 0.37 < blurred.mean() < 0.58  # one in twenty has too small a sigma to show
    assert 0.68 < jittered.mean() < 0.9


def test_gray_blur_and_jitter_are_drawn_independently():
    correlations = np.corrcoef(applied_to_edges())
    assert np.abs(correlations - np.eye(3)).max() < 0.2  # four deviations


def mean_factor(found, image):
    return np.mean(found / image)


def contrast_factor(found, image):
    luma = (image @ LUMA).mean()
    return np.vdot(found - luma, image - luma) / np.vdot(image - luma, image - luma)


def saturation_factor(found, image):
    gray = (image @ LUMA)[..., None]
    return np.vdot(found - gray, image - gray) / np.vdot(image - gray, image - gray)


def hue_turns(found, image):
    before, after = (colorsys.rgb_to_hsv(*x[0, 0].astype(float))[0] for x in (image, found))
    return (after - before + 0.5) % 1 - 0.5


@pytest.mark.parametrize(
    ("name", "middle", "strength", "recover"),
    [
        ("BRIGHTNESS", 1, 0.5, mean_factor),
        ("CONTRAST", 1, 0.5, contrast_factor),
        ("SATURATION", 1, 0.5, saturation_factor),
        ("HUE", 0, 0.25, hue_turns),
    ],
)
def test_factors_fill_their_stated_range(monkeypatch, name, middle, strength, recover):
    assert getattr(perturb, name) == strength
    for other in {"BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"} - {name}:
        monkeypatch.setattr(perturb, other, 0.0)
    image = np.random.default_rng(9).uniform(0.4, 0.6, (3, 3, 3)).astype(np.float32)  # no clipping
    found = perturb.color_jitter(jax.random.key(3), np.repeat(image[None], 300, axis=0))
    factors = np.array([recover(x, image) for x in np.asarray(found)])
    assert np.abs(factors - middle).max() <= strength + 1e-3
    assert factors.min() < middle - 0.9 * strength and factors.max() > middle + 0.9 * strength
    assert abs(factors.mean() - middle) < 0.2 * strength


def test_operators_run_once_each_in_every_order(monkeypatch):
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    for digit, name in enumerate(names, start=1):
        # Each writes its own digit: an order of operators reads as a number of four digits.
        monkeypatch.setattr(perturb, name, lambda x, factor, digit=digit: 10 * x + digit)
    found = perturb.color_jitter(jax.random.key(4), np.zeros((300, 3, 3, 3), np.float32))
    orders = {str(int(x)) for x in np.asarray(found)[:, 0, 0, 0]}
    assert {"".join(sorted(order)) for order in orders} == {"1234"}
    assert len(orders) == 24
