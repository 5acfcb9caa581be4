import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.data.transforms import (
    Span,
    check_maps,
    covering_size,
    network_size,
    random_span,
    random_view,
    resize_crop,
    resize_example,
    resize_image,
)
from dav.errors import DavError


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


def coordinates(height, width, suffix=".png", scale=1):
    """An example whose image tells by its colour where its pixel was, by column and by row, and
    whose map tells the same in pixels; the map is `scale` times as large."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 0 * x], axis=-1)
    options = [cv2.IMWRITE_JPEG_QUALITY, 98]
    encoded = cv2.imencode(suffix, image.round().astype(np.uint8)[..., ::-1], options)[1].tobytes()
    rows, columns = np.mgrid[: height * scale, : width * scale].astype(np.float32)
    disparity = (columns + 0.5) / scale + 10_000 * np.floor((rows + 0.5) / scale)
    return {"id": "a", "image": encoded, "disparity": disparity, "valid": (rows + columns) % 2 == 0}


def places(view, height, width):
    """(column, row) in pixels of the original, by the image and by the map."""
    by_image = [
        view["image"][..., 0] * ((width - 1) / 255) + 0.5,
        view["image"][..., 1] * ((height - 1) / 255) + 0.5,
    ]
    return by_image, [view["disparity"] % 10_000, view["disparity"] // 10_000 + 0.5]


@pytest.mark.parametrize(
    ("size", "suffix", "scale"),
    [
        ((240, 320), ".png", 1),  # shrunk
        ((190, 130), ".png", 1),  # upright and shrunk
        ((70, 90), ".png", 1),  # enlarged
        ((400, 533), ".jpg", 1),  # decoded at 1/2, of odd size
        ((801, 1203), ".jpg", 1),  # at 1/8
        ((120, 160), ".png", 2),  # the map is larger
    ],
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_image_disparity_and_mask_move_together(size, suffix, scale, seed):
    example = coordinates(*size, suffix, scale)
    rng = np.random.default_rng(seed)
    view = random_view(example, rng, short_side_px=98, crop_px=(98, 98))
    assert {k: (v.shape, v.dtype.name) for k, v in view.items()} == {
        "image": ((98, 98, 3), "uint8"),
        "disparity": ((98, 98), "float32"),
        "valid": ((98, 98), "bool"),
    }
    by_image, by_map = places(view, *size)
    pixel = max(1.0, min(size) / 98)  # of the crop, in pixels of the original
    step = max(size) / 255  # what one step of colour is, in pixels
    for one, other in zip(by_image, by_map, strict=True):
        inside = np.s_[2:-2, 2:-2]  # cubic has no pixels beyond the crop's border
        difference = (one - other)[inside]
        assert np.abs(difference).max() <= 0.6 * pixel + 1.6 * step
        assert abs(difference.mean()) <= 0.15 * pixel + 0.5 * step  # no shift


@pytest.mark.parametrize(
    ("size", "suffix", "reduction"), [((150, 310), ".png", 1), ((391, 850), ".jpg", 2)]
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_crop_shows_what_resizing_everything_first_would(size, suffix, reduction, seed):
    """To half a pixel of the decoded image: seen in the ramps that tell the place."""
    example = coordinates(*size, suffix)
    view = random_view(example, np.random.default_rng(seed), short_side_px=98, crop_px=(98, 98))
    whole = covering_size(*size, 98, (98, 98))
    everything = resize_example({**example, "image": decoded(example)}, whole)["image"]
    flipped = view["image"][0, 0, 0] > view["image"][0, -1, 0]
    image = view["image"][:, ::-1] if flipped else view["image"]
    differences = [
        np.abs(everything[:, left : left + 98].astype(int) - image)[2:-2, 2:-2].max()
        for left in range(whole[1] - 98 + 1)
    ]
    half_a_pixel = 0.5 * reduction * 255 / min(size)
    whole_step = 0.5 * 255 / whole[1]  # the nearest place among whole pixels of the large one
    assert min(differences) <= half_a_pixel + whole_step + 2


def decoded(example):
    return cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR_RGB)


def test_without_resizing_every_pixel_is_the_original():
    example = coordinates(98, 140)
    whole = decoded(example)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        view = random_view(example, rng, short_side_px=98, crop_px=(98, 98))
        left = int(view["disparity"].min() % 10_000)
        flipped = view["disparity"][0, 0] > view["disparity"][0, -1]
        order = slice(None, None, -1 if flipped else 1)
        cut = np.s_[:, left : left + 98]
        np.testing.assert_array_equal(view["image"], whole[cut][:, order])
        np.testing.assert_array_equal(view["disparity"], example["disparity"][cut][:, order])
        np.testing.assert_array_equal(view["valid"], example["valid"][cut][:, order])


@given(
    st.integers(14, 3000),
    st.sampled_from([1, 2, 4, 8]),
    st.floats(1.0, 2.5),
    st.integers(14, 600),
    st.integers(1, 3000),
    st.integers(0, 1000),
)
def test_spans_stay_inside_and_their_pixels_in_order(decoded, reduction, excess, crop, size, seed):
    stored, whole = decoded * reduction, round(crop * excess)
    span = random_span(decoded, stored, whole, crop, np.random.default_rng(seed))
    assert span.start >= 0 and span.start + span.length <= decoded and span.length >= 1
    places = span.nearest(size)
    assert places.shape == (crop,) and (np.diff(places) >= 0).all()
    assert places[0] >= 0 and places[-1] < size


def test_nearest_pixels_are_those_whose_middle_is_nearest():
    span = Span(start=3, length=4, reduction=2, stored=20, crop=8)  # 6 … 14 of 20
    np.testing.assert_array_equal(span.nearest(20), range(6, 14))
    np.testing.assert_array_equal(span.nearest(10), [3, 3, 4, 4, 5, 5, 6, 6])


@pytest.mark.parametrize(
    ("size", "method"), [((90, 70), "LINEAR"), ((40, 90), "AREA"), ((130, 160), "CUBIC")]
)
def test_images_are_shrunk_and_enlarged_by_fitting_methods(size, method):
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    expected = cv2.resize(image, size[::-1], interpolation=getattr(cv2, f"INTER_{method}"))
    np.testing.assert_array_equal(resize_crop(image, size), expected)
    assert resize_crop(image, (100, 120)) is image


@pytest.mark.parametrize("size", [(60, 120), (60, 100), (40, 120), (90, 120), (90, 45)])
def test_what_a_side_loses_is_averaged_whatever_the_other_does(size):
    """Stripes of one pixel across the long side become grey, in an image and in its upright twin,
    and where nothing shrinks the filter is cubic."""
    stripes = np.zeros((60, 240, 3), np.uint8)
    stripes[:, ::2] = 255
    lying = resize_image(stripes, size)
    assert lying.shape == (*size, 3) and lying[:, 2:-2].std() < 30
    upright = resize_image(stripes.transpose(1, 0, 2).copy(), size[::-1])
    np.testing.assert_array_equal(upright.transpose(1, 0, 2), lying)
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    larger = cv2.resize(image, (120, 60), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(resize_image(image, (60, 120)), larger)


def test_no_disparity_is_invented():
    example = coordinates(240, 320)
    view = random_view(example, np.random.default_rng(0), short_side_px=196, crop_px=(98, 98))
    assert set(np.unique(view["disparity"])) <= set(np.unique(example["disparity"]))
    resized = resize_example({**example, "image": decoded(example)}, (196, 266))
    assert set(np.unique(resized["disparity"])) <= set(np.unique(example["disparity"]))
    assert resized["valid"].dtype == bool and resized["disparity"].dtype == np.float32


def test_half_of_the_views_are_flipped_and_every_place_is_cropped():
    example = coordinates(240, 320)
    rng = np.random.default_rng(0)
    views = [random_view(example, rng, short_side_px=196, crop_px=(196, 196)) for _ in range(200)]
    flipped = [view["disparity"][0, 0] > view["disparity"][0, -1] for view in views]
    assert 70 < sum(flipped) < 130
    left = {float(view["disparity"].min()) for view in views}
    assert min(left) < 2 and len(left) > 30


LABEL_SIDES_PX = (140, 384, 500, 505, 512, 518, 520, 1024)
IMAGE_SIZES = (
    *((480, 640), (720, 1280), (518, 1036), (500, 1250), (518, 1554), (400, 1400)),
    *((640, 480), (1554, 518), (500, 500), (375, 1242), (2000, 1333)),
)


@pytest.mark.parametrize("label_short_side_px", LABEL_SIDES_PX)
def test_maps_of_every_network_size_are_of_the_shape_of_their_image(label_short_side_px):
    for size in IMAGE_SIZES:
        label_size = network_size(*size, label_short_side_px)
        check_maps({"id": "a", "disparity": np.zeros(label_size, np.float32)}, size)


@pytest.mark.parametrize(("size", "shape"), [((480, 640), (518, 777)), ((518, 1554), (518, 1470))])
def test_maps_of_another_aspect_are_refused(size, shape):
    with pytest.raises(DavError, match="of different shape"):
        check_maps({"id": "a", "disparity": np.zeros(shape, np.float32)}, size)


def test_maps_of_another_shape_and_missing_ones_are_refused():
    example = coordinates(240, 320)
    turned = example | {"disparity": example["disparity"].T, "valid": example["valid"].T}
    for wrong, message in (
        (turned, r"image \(240, 320\) and map \(320, 240\)"),
        ({"id": "a", "image": example["image"]}, "a has no map"),
        (example | {"image": b"noise"}, "a cannot be decoded"),
    ):
        with pytest.raises(DavError, match=message):
            random_view(wrong, np.random.default_rng(0), short_side_px=98, crop_px=(98, 98))
