"""The whole network: shapes, sizes, names and precision."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dav.models.depth_anything import SIZES, Architecture, DepthAnything, make_encoder, normalise

TINY = Architecture(32, 4, 2, (0, 1, 2, 3), 8, (8, 8, 8, 8), position_grid=7)
IMAGE_SIZES_PX = [(98, 98), (84, 126)]  # odd and the position table's own; even and not square

compile_fast = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0},  # half the time, same results
)
init = compile_fast(DepthAnything(TINY).init)
apply = compile_fast(DepthAnything(TINY).apply)


def random_images(size_px, batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *size_px, 3)).astype(np.float32)


@functools.cache
def tiny_params(seed=0):
    key = jax.random.key(seed, impl="rbg")  # compiles in half the time of the default
    return init(key, random_images((28, 28)))


def abstract_params(size):
    image = jax.ShapeDtypeStruct((1, 28, 28, 3), jnp.float32)
    return jax.eval_shape(DepthAnything(size).init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize("size_px", IMAGE_SIZES_PX)
def test_disparity_has_the_size_of_the_image_and_is_not_negative(size_px):
    disparity, tokens = apply(tiny_params(), random_images(size_px))
    assert disparity.shape == (2, *size_px) and disparity.dtype == jnp.float32
    assert tokens.shape == (2, size_px[0] // 14, size_px[1] // 14, 32)
    assert tokens.dtype == jnp.float32
    assert (disparity >= 0).all() and (disparity > 0).any()
    assert np.isfinite(tokens).all() and np.isfinite(disparity).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_fresh_network_is_alive(seed):
    disparity, _ = apply(tiny_params(seed), random_images((84, 126), seed=seed))
    assert (disparity > 0).mean() > 0.5


def test_an_image_does_not_depend_on_its_neighbours():
    first, second = (random_images((84, 126), seed=seed) for seed in (1, 2))
    second[1] = first[1]
    results = (apply(tiny_params(), images) for images in (second, first))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
        assert np.abs(found[0] - expected[0]).max() > 1e-3


def test_tokens_are_normalised():
    _, tokens = apply(tiny_params(), random_images((98, 98)))
    np.testing.assert_allclose(tokens.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(tokens.std(axis=-1), 1, atol=1e-3)


def test_the_encoder_alone_gives_the_same_tokens():
    image = random_images((84, 126))
    _, tokens = apply(tiny_params(), image)
    params = {"params": tiny_params()["params"]["encoder"]}
    taps = compile_fast(make_encoder(TINY).apply)(params, image)
    assert len(taps) == 4
    np.testing.assert_allclose(taps[-1], tokens, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("vits", 24_785_089),
        ("vitb", 97_470_785),
        ("vitl", 335_315_649),
        ("vitg", 1_258_132_225),
    ],
)
def test_parameters_are_the_released_ones(name, released):
    leaves = jax.tree.leaves(abstract_params(SIZES[name]))
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    assert count == released
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


def test_parameters_have_readable_names():
    shapes = {k: v.shape for k, v in flatten_dict(abstract_params(TINY), sep="/").items()}
    assert shapes["encoder/block_03/attn/qkv/kernel"] == (32, 96)
    assert shapes["encoder/patch_embed/kernel"] == (14, 14, 3, 32)
    assert shapes["encoder/positions"] == (1, 50, 32)
    assert shapes["encoder/class_token"] == (1, 1, 32)
    assert shapes["encoder/norm/scale"] == (32,)
    assert shapes["decoder/resize_1/kernel"] == (4, 4, 8, 8)
    assert shapes["decoder/fusion_1/unit2/conv1/kernel"] == (3, 3, 8, 8)
    assert shapes["decoder/output_3/bias"] == (1,)
    assert {name.split("/")[0] for name in shapes} == {"encoder", "decoder"}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_consistent(name):
    size = SIZES[name]
    assert size.width == 64 * size.heads
    assert len(size.taps) == 4 and list(size.taps) == sorted(set(size.taps))
    assert size.taps[-1] == size.blocks - 1


def test_bfloat16_keeps_parameters_and_results_in_float32():
    image = random_images((84, 126))
    model = DepthAnything(TINY, dtype=jnp.bfloat16)
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    rounded = compile_fast(model.apply)(tiny_params(), image)
    for found, expected in zip(rounded, apply(tiny_params(), image), strict=True):
        assert found.dtype == jnp.float32
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert 1e-5 < error < 0.05  # rounded, but only rounded


def test_normalise_maps_the_mean_colour_to_zero():
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = np.stack([mean, mean + deviation, np.ones(3)]).astype(np.float32)[None]
    expected = [[[0, 0, 0], [1, 1, 1], (1 - mean) / deviation]]
    found = normalise(image)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
