import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dav.data.transforms import covering_size, network_size, random_view, resize_example


@given(st.integers(20, 3000), st.integers(20, 3000), st.sampled_from([98, 196, 518]))
def test_network_size_is_a_multiple_of_the_patch_and_keeps_the_aspect(height, width, short):
    rows, columns = network_size(height, width, short)
    assert rows % 14 == 0 and columns % 14 == 0 and min(rows, columns) == short
    scale = short / min(height, width)
    assert abs(rows - height * scale) <= 7 and abs(columns - width * scale) <= 7


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (518, 686)), ((375, 1242), (518, 1722)), ((240, 320), (518, 686))],
)
def test_network_size_matches_the_released_transform(size, expected):
    assert network_size(*size, 518) == expected


@given(st.integers(20, 3000), st.integers(20, 3000), st.integers(14, 600))
def test_a_crop_always_fits(height, width, short):
    rows, columns = covering_size(height, width, short, (168, 224))
    assert rows >= 168 and columns >= 224 and rows % 14 == columns % 14 == 0


def test_an_image_is_enlarged_no_more_than_the_crop_asks():
    assert covering_size(240, 320, 196, (168, 224)) == (196, 266)
    assert covering_size(320, 240, 168, (168, 224)) == (294, 224)


def coordinates(height, width):
    """An example whose every channel tells where its pixel was, by column and by row."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=-1).astype(np.uint8)
    return {"image": image, "disparity": x + 1, "valid": (x + y) % 2 == 0}


@given(st.integers(0, 1000))
def test_image_disparity_and_mask_move_together(seed):
    example = coordinates(240, 320)
    view = random_view(example, np.random.default_rng(seed), short_side_px=196, crop_px=(98, 98))
    assert view["image"].shape == (98, 98, 3)
    column_by_image = view["image"][..., 0].astype(float) * 320 / 255
    assert np.abs(column_by_image - (view["disparity"] - 1)).max() < 4


def test_no_disparity_is_invented():
    example = coordinates(240, 320)
    resized = resize_example(example, (196, 266))
    assert set(np.unique(resized["disparity"])) <= set(np.unique(example["disparity"]))
    assert resized["valid"].dtype == bool and resized["disparity"].dtype == np.float32


def test_half_of_the_views_are_flipped_and_every_place_is_cropped():
    example = coordinates(240, 320)
    rng = np.random.default_rng(0)
    views = [random_view(example, rng, short_side_px=196, crop_px=(196, 196)) for _ in range(200)]
    flipped = [view["disparity"][0, 0] > view["disparity"][0, -1] for view in views]
    assert 70 < sum(flipped) < 130
    left = {float(view["disparity"].min()) for view in views}
    assert min(left) == 1 and len(left) > 30


def test_a_view_is_a_copy_that_the_loader_can_send():
    example = coordinates(240, 320)
    view = random_view(example, np.random.default_rng(3), short_side_px=196, crop_px=(98, 98))
    assert all(value.flags.c_contiguous for value in view.values())
