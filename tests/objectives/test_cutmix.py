"""CutMix: the boxes, the mixed images and the loss of the two regions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow

from dav.objectives import cutmix
from dav.objectives.affine_invariant import affine_invariant

SIZES = [(70, 70), (56, 98)]

draw_boxes = jax.jit(cutmix.draw_boxes, static_argnums=(1, 2, 3))
draw_masks = jax.jit(cutmix.draw_masks, static_argnums=1)
loss_and_count = jax.jit(cutmix.cutmix_loss, static_argnames="trim")
gradient = jax.jit(jax.grad(lambda *maps: cutmix.cutmix_loss(*maps)[0]))


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


def test_the_neighbour_is_the_image_before_and_the_last_for_the_first():
    x = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(cutmix.neighbour(x), x[[3, 0, 1, 2]])


def mixed_batch(seed):
    """Arguments of the loss for a whole batch cut into itself."""
    prediction, target, valid = random_maps(seed)
    return prediction, target, valid, *map(cutmix.neighbour, (target, valid)), random_boxes()


@pytest.mark.parametrize("trim", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_slow_reference(seed, trim):
    batch = mixed_batch(seed)
    total, count = loss_and_count(*batch, trim=trim)
    expected, images = slow.cutmix(*map(np.asarray, batch), trim=trim)
    assert count == images == 3 and total.dtype == count.dtype == jnp.float32
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_regions_are_taken_from_their_own_targets():
    prediction, target, valid, other, other_valid, masks = mixed_batch(4)
    plain = loss_and_count(prediction, target, valid, other, other_valid, masks)
    target = np.where(masks, np.nan, target)
    other = np.where(masks, other, np.nan)
    found = loss_and_count(prediction, target, valid, other, other_valid, masks)
    np.testing.assert_array_equal(found, plain)


def test_loss_ignores_scale_and_shift_of_each_region_separately():
    prediction, target, valid, other, other_valid, masks = mixed_batch(5)
    moved = np.where(masks, 5 * prediction + 3, 0.5 * prediction - 2)
    plain, _ = loss_and_count(prediction, target, valid, other, other_valid, masks)
    found, _ = loss_and_count(moved, 7 * target - 1, valid, 2 * other + 9, other_valid, masks)
    np.testing.assert_allclose(found, plain, rtol=1e-5)


def test_a_prediction_that_fits_the_mixed_labels_costs_nothing():
    _, target, valid, other, other_valid, masks = mixed_batch(6)
    mixed = np.where(masks, other, target)
    total, count = loss_and_count(mixed, target, valid, other, other_valid, masks)
    assert count == 3
    np.testing.assert_allclose(total, 0, atol=1e-6)


def test_an_empty_mask_gives_the_plain_loss():
    batch = mixed_batch(7)[:-1]
    plain = jax.jit(affine_invariant)(*batch[:3])
    found = loss_and_count(*batch, np.zeros_like(batch[2]))
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_an_image_counts_unless_neither_region_has_a_target():
    prediction, target, _ = random_maps(8)
    valid, box = np.ones_like(target, bool), random_boxes()
    target[0], target[2] = 0.1, 0.2  # constant: both sources of image 0, one of image 1
    batch = prediction, target, valid, *map(cutmix.neighbour, (target, valid)), box
    counts = [int(loss_and_count(*(x[i : i + 1] for x in batch))[1]) for i in range(3)]
    totals = np.array([loss_and_count(*(x[i : i + 1] for x in batch))[0] for i in range(3)])
    assert counts == [0, 1, 0]
    np.testing.assert_array_equal(totals == 0, [True, False, True])


def test_sums_and_counts_add_up_over_parts_of_the_batch():
    batch = mixed_batch(9)
    parts = [loss_and_count(*(x[i : i + 1] for x in batch)) for i in range(3)]
    whole = loss_and_count(*batch)
    assert sum(count for _, count in parts) == whole[1]
    np.testing.assert_allclose(sum(total for total, _ in parts), whole[0], rtol=1e-6)


def test_gradient_stays_finite_with_empty_and_degenerate_regions():
    prediction, target, valid = random_maps(9)
    valid[1], target[0] = False, 0.5
    batch = target, valid, *map(cutmix.neighbour, (target, valid)), random_boxes()
    grad = np.asarray(gradient(prediction, *batch))
    assert np.isfinite(grad).all() and grad.any()


@pytest.mark.parametrize("junk", [np.nan, np.inf])
@pytest.mark.parametrize("inside", [False, True])
def test_a_prediction_that_is_not_finite_shows(inside, junk):
    prediction, *rest = mixed_batch(10)
    masks = rest[-1]
    pixel = tuple(np.argwhere((masks == inside) & rest[1] & rest[3])[0])
    prediction[pixel] = junk
    assert not np.isfinite(loss_and_count(prediction, *rest)[0])
