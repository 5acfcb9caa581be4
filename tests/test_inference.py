"""Images of any size through a network: order, batches, sizes, options."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from random_weights import TINY, random_weights

from dav import inference
from dav.errors import ConfigError, DavError
from dav.inference import in_batches, make_depth_model, nearest_aspect, network_input, resize_map
from dav.models.resize import resize_bilinear


@pytest.fixture(scope="module")
def model():
    weights = random_weights(TINY, 0)
    return make_depth_model(weights.params, weights.architecture, size_px=56)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_list_of_sizes_comes_back_in_order_and_equal_to_one_by_one(model):
    sizes = [(60, 80), (80, 60), (90, 120), (57, 76), (60, 60), (120, 90), (240, 320), (61, 81)]
    photos = [photo(*size, seed) for seed, size in enumerate(sizes)]
    for batch_size in (1, 2, 4):
        batched = make_depth_model(
            model.params, model.architecture, size_px=56, batch_size=batch_size
        )
        for found, image in zip(batched.predict(photos), photos, strict=True):
            alone = model.predict(image)
            assert found.shape == image.shape[:2] and found.dtype == np.float32
            assert np.abs(found - alone).max() <= 1e-5 * alone.std()


def test_arrays_pictures_and_paths_are_the_same_image(model, tmp_path):
    image = photo(60, 80)
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = model.predict(image)
    assert expected.std() > 0
    for same in (Image.fromarray(image), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(model.predict(same), expected)
    assert model.predict([]) == []


def test_many_sizes_of_one_aspect_compile_once():
    weights = random_weights(TINY, 0)
    fresh = make_depth_model(weights.params, weights.architecture, size_px=70, batch_size=4)
    before = inference._forward_one_by_one._cache_size()
    fresh.predict([photo(30 * k, 40 * k) for k in range(2, 10)])
    assert inference._forward_one_by_one._cache_size() == before + 1


def test_the_network_sees_the_short_side_at_the_wanted_size(model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        inference,
        "_forward",
        lambda params, images, *_: seen.append(images.shape) or images[..., 0],
    )
    model.predict([photo(100, 150), photo(300, 100)])
    assert seen == [(1, 56, 84, 3), (1, 168, 56, 3)]


@given(height=st.integers(1, 4000), width=st.integers(1, 4000))
def test_buckets_change_the_aspect_by_four_percent_at_most(height, width):
    ratio, (rows, columns) = width / height, nearest_aspect(height, width)
    if 1 / 4 <= ratio <= 4:
        assert abs(math.log(ratio) - math.log(columns / rows)) < 0.04
    for aspect in (1, 5 / 4, 4 / 3, 3 / 2, 8 / 5, 16 / 9, 2):
        assert nearest_aspect(1000, 1000 * aspect) == (1, aspect) or aspect == 1
        assert nearest_aspect(1000 * aspect, 1000) == (aspect, 1)


def test_buckets_make_few_shapes_of_many(model):
    photos = [photo(60, 60 + step, step) for step in range(0, 60, 2)]
    exact, bucketed = set(), set()
    for buckets, shapes in ((False, exact), (True, bucketed)):
        asked = dataclasses.replace(model, size_px=518, aspect_buckets=buckets)
        shapes.update(asked._prepare(image).shape for image in photos)
    assert len(exact) > 25 and len(bucketed) <= 13
    buckets = dataclasses.replace(model, aspect_buckets=True)
    assert [m.shape for m in buckets.predict(photos[:3])] == [p.shape[:2] for p in photos[:3]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"size_px": 13}, "size_px=13 is too small"),
        ({"size_px": -1}, "size_px=-1 is too small"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; known: float32, bfloat16"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": "2"}, "batch_size='2' must be a whole number"),
        ({"size_px": None}, "size_px=None must be a whole number"),
        ({"size_px": 5.5}, "size_px=5.5 must be a whole number"),
        ({"size_px": 200000}, "size_px=200000 is too large"),
    ],
)
def test_options_that_cannot_work_are_named(model, options, problem):
    with pytest.raises(ConfigError, match=problem):
        make_depth_model(model.params, model.architecture, **{"size_px": 56, **options})


def test_what_is_no_image_is_named(model):
    with pytest.raises(DavError, match="float32"):
        model.predict(np.zeros((60, 80, 3), np.float32))
    with pytest.raises(DavError, match="missing.png"):
        model.predict(["missing.png"])


def test_bfloat16_is_close(model):
    rounded = make_depth_model(model.params, model.architecture, size_px=56, dtype="bfloat16")
    found, expected = (m.predict(photo(60, 80)) for m in (rounded, model))
    assert 1e-6 < np.abs(found - expected).max() / expected.std() < 0.2


@settings(deadline=None)
@given(
    shapes=st.lists(st.sampled_from([(1, 2), (2, 1), (3, 3)]), max_size=30),
    batch_size=st.integers(1, 8),
)
def test_batches_hold_equal_shapes_lose_nothing_and_are_few(shapes, batch_size):
    ran = []

    def run(images):
        ran.append(images.shape)
        return images[:, 0, 0, 0] * 10

    items = [(key, np.full((*shape, 3), key)) for key, shape in enumerate(shapes)]
    found = dict(in_batches(run, items, batch_size))
    assert found == {key: 10 * key for key in range(len(shapes))}
    assert {shape[0] for shape in ran} <= {batch_size, 1, 2, 4}
    if len(set(shapes)) <= inference.WAITING_BATCHES:
        assert len(ran) == sum(math.ceil(shapes.count(s) / batch_size) for s in set(shapes))


def test_what_waits_for_company_is_bounded():
    drawn, held = [], []

    def items():
        for key in range(400):
            drawn.append(key)
            yield key, np.zeros((key % 37 + 1, 1, 3))  # more shapes than batches are held

    for count, _ in enumerate(in_batches(lambda images: images, items(), 8), start=1):
        held.append(len(drawn) - count)
    assert len(held) == 400 and max(held) <= 8 * inference.WAITING_BATCHES


@pytest.mark.parametrize("sizes", [((37, 50), (480, 640)), ((30, 20), (7, 9)), ((5, 5), (5, 1))])
def test_the_map_is_resized_as_the_network_resizes(sizes):
    values = np.random.default_rng(0).normal(size=sizes[0]).astype(np.float32)
    expected = jax.jit(resize_bilinear, static_argnums=1)(values[None, ..., None], sizes[1])
    np.testing.assert_allclose(resize_map(values, sizes[1]), expected[0, ..., 0], atol=2e-6)


def test_input_keeps_the_overshoot_of_the_cubic():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    found = network_input(image, (14, 14))
    assert found.dtype == np.float32 and found.min() < -0.01 and found.max() > 1.01
