"""CutMix: the boxes, the mixed images and the loss of the two regions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dav.objectives import cutmix
from dav.objectives.affine_invariant import affine_invariant

SIZES = [(70, 70), (56, 98)]

draw_boxes = jax.jit(cutmix.draw_boxes, static_argnums=(1, 2, 3))
draw_masks = jax.jit(cutmix.draw_masks, static_argnums=1)
loss_and_usable = jax.jit(cutmix.cutmix_loss)


@functools.cache
def boxes(height, width):
    return [np.asarray(x) for x in draw_boxes(jax.random.key(3), 1000, height, width)]


@functools.cache
def masks(height, width, seed=3):
    return np.asarray(draw_masks(jax.random.key(seed), (1000, height, width)))


def random_maps(seed, shape=(3, 8, 9)):
    rng = np.random.default_rng(seed)
    prediction, target = rng.random((2, *shape), np.float32)
    return prediction, target, rng.random(shape) < 0.8


def random_boxes():
    box = np.zeros((3, 8, 9), bool)
    box[0, 1:5, 2:7] = True
    box[1, 5:8, 0:3] = True
    return box  # the third image is not mixed


def slow_region(prediction, target, region):
    """The affine-invariant loss of one image over one region."""

    def normalise(x):
        x = x[region].astype(np.float64)
        return (x - np.median(x)) / np.abs(x - np.median(x)).mean()

    if not region.any():
        return 0.0
    return np.abs(normalise(prediction) - normalise(target)).mean()


@pytest.mark.parametrize("size", SIZES)
def test_boxes_fit_inside(size):
    top, left, rows, columns = boxes(*size)
    assert (top >= 0).all() and (left >= 0).all() and (rows > 0).all() and (columns > 0).all()
    assert (top + rows <= size[0]).all() and (left + columns <= size[1]).all()


@pytest.mark.parametrize("size", SIZES)
def test_area_and_aspect_of_boxes_stay_in_range_up_to_truncation(size):
    _, _, rows, columns = boxes(*size)
    pixels = size[0] * size[1]
    assert (rows * columns <= 0.4 * pixels).all()
    assert ((rows + 1) * (columns + 1) > 0.02 * pixels).all()
    assert ((rows + 1) / columns > 0.3).all() and (rows / (columns + 1) < 1 / 0.3).all()


def test_boxes_use_their_whole_range():
    top, left, rows, columns = boxes(70, 70)
    share, aspect = rows * columns / 70**2, rows / columns
    assert share.min() < 0.04 and share.max() > 0.36
    assert aspect.min() < 0.5 and aspect.max() > 2.5
    for start, length in ((top, rows), (left, columns)):
        assert (start == 0).any() and (start + length == 70).any()
        assert len(np.unique(start)) > 20


@pytest.mark.parametrize("size", SIZES)
def test_area_of_boxes_is_uniform_not_biased_to_those_that_fit_easily(size):
    _, _, rows, columns = boxes(*size)
    share = (rows + 0.5) * (columns + 0.5) / (size[0] * size[1])  # truncation takes half a pixel
    assert abs(share.mean() - 0.21) < 0.018  # five deviations of the mean of 1000
    assert 0.2 < (share > 0.305).mean() < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_rectangles(size):
    used = masks(*size)[masks(*size).any(axis=(1, 2))]
    rows, columns = used.any(axis=2), used.any(axis=1)
    np.testing.assert_array_equal(used, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # one run: one step up and one down between padded ends
        steps = np.diff(np.pad(line.astype(int), ((0, 0), (1, 1))), axis=1)
        assert (np.abs(steps).sum(axis=1) == 2).all()
    share = used.mean(axis=(1, 2))
    assert share.max() <= 0.4 and len(np.unique(share)) > 20


@pytest.mark.parametrize("size", SIZES)
def test_about_half_of_the_images_are_not_mixed(size):
    unmixed = (~masks(*size).any(axis=(1, 2))).mean()
    assert 0.42 < unmixed < 0.58  # five deviations of 1000 fair coins


def test_use_and_shape_of_a_box_are_drawn_independently():
    """Of one image of the batch, over many keys: shared draws would show in its aspect."""
    keys = jax.random.split(jax.random.key(5), 8000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: cutmix.draw_masks(key, (1, 42, 42))))(keys))
    drawn = drawn[:, 0][drawn.any(axis=(1, 2, 3))]
    rows, columns = drawn.any(axis=2).sum(axis=1), drawn.any(axis=1).sum(axis=1)
    _, _, every_rows, every_columns = map(np.asarray, draw_boxes(jax.random.key(9), 8000, 42, 42))
    used, every = np.log(rows / columns).mean(), np.log(every_rows / every_columns).mean()
    assert abs(used - every) < 0.045  # four deviations of the difference of two such means


def test_one_key_gives_one_mask():
    first, other = masks(70, 70), masks(70, 70, seed=4)
    again = draw_masks(jax.random.key(3), first.shape)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (1000, 70, 70) and first.dtype == bool
    assert (first != other).any()


def test_mix_shows_the_previous_image_inside_and_itself_outside():
    images = np.random.default_rng(0).random((3, 8, 9, 3), np.float32)
    box = random_boxes()
    mixed = np.asarray(cutmix.mix(images, box))
    for index in range(3):
        np.testing.assert_array_equal(mixed[index][box[index]], images[index - 1][box[index]])
        np.testing.assert_array_equal(mixed[index][~box[index]], images[index][~box[index]])


@pytest.mark.parametrize("seed", range(4))
def test_loss_normalises_each_region_on_its_own_and_weighs_by_area(seed):
    prediction, target, valid = random_maps(seed)
    box = random_boxes()
    loss, usable = loss_and_usable(prediction, target, valid, box)
    expected = [
        box[i].mean() * slow_region(prediction[i], target[i - 1], valid[i - 1] & box[i])
        + (~box[i]).mean() * slow_region(prediction[i], target[i], valid[i] & ~box[i])
        for i in range(3)
    ]
    assert usable.all()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_ignores_scale_and_shift_of_each_region_separately():
    prediction, target, _ = random_maps(5)
    valid, box = np.ones_like(target, bool), random_boxes()
    moved = np.where(box, 5 * prediction + 3, 0.5 * prediction - 2)
    plain, _ = loss_and_usable(prediction, target, valid, box)
    found, _ = loss_and_usable(moved, target, valid, box)
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)


def test_a_prediction_that_fits_the_mixed_labels_costs_nothing():
    _, target, _ = random_maps(6)
    valid, box = np.ones_like(target, bool), random_boxes()
    mixed = np.where(box, np.roll(target, 1, axis=0), target)
    np.testing.assert_allclose(loss_and_usable(mixed, target, valid, box)[0], 0, atol=1e-6)


def test_an_empty_mask_gives_the_plain_loss():
    prediction, target, valid = random_maps(7)
    plain, _ = jax.jit(affine_invariant)(prediction, target, valid)
    loss, usable = loss_and_usable(prediction, target, valid, np.zeros_like(valid))
    np.testing.assert_allclose(loss, plain, rtol=1e-6)
    assert usable.all()


def test_loss_is_unusable_only_where_both_regions_are():
    prediction, target, _ = random_maps(8)
    valid, box = np.ones_like(target, bool), random_boxes()
    target[0], target[2] = 0.1, 0.2  # constant: both sources of image 0, one of image 1
    loss, usable = loss_and_usable(prediction, target, valid, box)
    np.testing.assert_array_equal(usable, [False, True, False])
    np.testing.assert_array_equal(loss == 0, [True, False, True])


def test_gradient_stays_finite_with_empty_and_degenerate_regions():
    prediction, target, valid = random_maps(9)
    box = random_boxes()
    valid[1], target[0] = False, 0.5

    def total(prediction):
        return jnp.sum(loss_and_usable(prediction, target, valid, box)[0])

    grad = np.asarray(jax.grad(total)(prediction))
    assert np.isfinite(grad).all() and grad.any()
