"""Every stage of the encoder against its formula in NumPy."""

import math

import jax
import numpy as np
import pytest

from dav.models.attention import attend
from dav.models.vit import (
    Attention,
    Block,
    Encoder,
    Mlp,
    PatchEmbedding,
    SwiGlu,
    resize_positions,
)

SMALL = {"width": 16, "heads": 2, "position_grid": 3}


def randomise(params, seed=0):
    """Every leaf drawn anew: biases of 0 and scales of 1 would hide a mistake."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        size = 1 / math.sqrt(math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.5
        return np.float32(size * rng.normal(size=leaf.shape) + (leaf.ndim == 1))

    return jax.tree.map(draw, params)


def params_of(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return randomise(shapes["params"])


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def in_float64(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def slow_dense(x, p):
    return x @ p["kernel"] + p["bias"]


def slow_norm(x, p, epsilon=1e-6):
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * p["scale"] + p["bias"]


def slow_gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def slow_mlp(x, p):
    return slow_dense(slow_gelu(slow_dense(x, p["fc1"])), p["fc2"])


def slow_swiglu(x, p):
    gate, value = np.split(slow_dense(x, p["w12"]), 2, axis=-1)
    return slow_dense(gate / (1 + np.exp(-gate)) * value, p["w3"])


def slow_softmax_attention(query, key, value):
    """One head of one image: [N, K] each."""
    logits = query @ key.T / math.sqrt(query.shape[1])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ value


def slow_attention(x, p, heads):
    """q, k, v are the thirds of the fused projection; heads are runs of channels."""
    out = np.zeros_like(x)
    head = x.shape[-1] // heads
    for image, tokens in enumerate(x):
        query, key, value = np.split(slow_dense(tokens, p["qkv"]), 3, axis=-1)
        for start in range(0, x.shape[-1], head):
            run = slice(start, start + head)
            one = slow_softmax_attention(query[:, run], key[:, run], value[:, run])
            out[image, :, run] = one
    return slow_dense(out, p["proj"])


def slow_block(x, p, heads):
    x = x + p["scale1"] * slow_attention(slow_norm(x, p["norm1"]), p["attn"], heads)
    mlp = slow_swiglu if "w12" in p["mlp"] else slow_mlp
    return x + p["scale2"] * mlp(slow_norm(x, p["norm2"]), p["mlp"])


def slow_patches(image, p):
    """Patch embedding, one patch after the other."""
    batch, height, width, _ = image.shape
    out = np.zeros((batch, height // 14, width // 14, p["bias"].size))
    for row in range(height // 14):
        for column in range(width // 14):
            patch = image[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
            out[:, row, column] = np.tensordot(patch, p["kernel"], 3) + p["bias"]
    return out


def cubic(distance, a=-0.75):
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def slow_cubic_weights(side, n_out, offset=0.1):
    """Weights [n_out, side] with replicated edges; output i samples (i + ½) / s − ½."""
    weights = np.zeros((n_out, side))
    for index in range(n_out):
        at = (index + 0.5) * side / (n_out + offset) - 0.5
        for source in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[index, min(max(source, 0), side - 1)] += cubic(at - source)
    return weights


def slow_positions(table, side, grid, offset=0.1):
    rows, columns = (slow_cubic_weights(side, n, offset) for n in grid)
    square = table.astype(np.float64).reshape(side, side, -1)
    return np.einsum("Yy,yxd,Xx->YXd", rows, square, columns).reshape(1, grid[0] * grid[1], -1)


def slow_encoder(image, p, heads, taps, side):
    patches = slow_patches(image, p["patch_embed"])
    batch, *grid, width = patches.shape
    table = p["positions"]
    at = slow_positions(table[:, 1:], side, grid) if grid != [side, side] else table[:, 1:]
    first = p["class_token"] + table[:, :1]
    if "registers" in p:
        first = np.concatenate([first, p["registers"]], axis=1)
    extra = first.shape[1]
    first = np.broadcast_to(first, (batch, extra, width))
    x = np.concatenate([first, patches.reshape(batch, -1, width) + at], axis=1)
    tapped = []
    for index in range(sum(name.startswith("block") for name in p)):
        x = slow_block(x, p[f"block_{index:02d}"], heads)
        if index in taps:
            tapped.append(slow_norm(x, p["norm"])[:, extra:].reshape(patches.shape))
    return tapped


def test_positions_on_their_own_grid_stay_as_they_are():
    table = normal((1, 49, 5))
    np.testing.assert_array_equal(resize_positions(table, (7, 7), 0.1), table)


@pytest.mark.parametrize(
    ("side", "grid"), [(7, (5, 9)), (7, (8, 8)), (7, (4, 6)), (7, (7, 8)), (37, (37, 49))]
)
def test_resized_positions_equal_a_plain_bicubic(side, grid):
    table = normal((1, side**2, 5))
    found = jax.jit(resize_positions, static_argnums=1)(table, grid, 0.1)
    expected = slow_positions(table, side, grid)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    without = slow_positions(table, side, grid, offset=0.0)
    assert np.abs(found - without).mean() > 1e-3  # the offset is not lost in the tolerance


@pytest.mark.parametrize("size_px", [(28, 28), (28, 42)])
def test_patch_embedding_is_the_strided_convolution(size_px):
    image = normal((2, *size_px, 3))
    module = PatchEmbedding(8)
    params = params_of(module, image)
    convolved = jax.lax.conv_general_dilated(
        image, params["kernel"], (14, 14), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = module.apply({"params": params}, image)
    np.testing.assert_allclose(found, convolved + params["bias"], atol=1e-5)
    np.testing.assert_allclose(found, slow_patches(image, params), atol=1e-5)


def test_attend_is_softmax_attention():
    query, key, value = (3 * normal((2, 7, 3, 8), seed) for seed in range(3))
    expected = np.zeros(value.shape)
    for image in range(2):
        for head in range(3):
            one = (x[image, :, head].astype(np.float64) for x in (query, key, value))
            expected[image, :, head] = slow_softmax_attention(*one)
    np.testing.assert_allclose(attend(query, key, value), expected, atol=1e-5)


def test_attend_survives_huge_logits():
    query = 1e3 * normal((1, 5, 2, 8))
    found = attend(query, query, normal((1, 5, 2, 8), seed=1))
    assert np.isfinite(found).all()


def test_attention_splits_its_projection_into_q_k_v_and_heads():
    x = normal((2, 5, 16))
    module = Attention(heads=4)
    params = params_of(module, x)
    expected = slow_attention(x.astype(np.float64), in_float64(params), heads=4)
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-5)


def test_mlp_uses_the_exact_gelu():
    x = normal((2, 5, 16))
    params = params_of(Mlp(), x)
    assert params["fc1"]["kernel"].shape == (16, 64)
    found = Mlp().apply({"params": params}, x)
    np.testing.assert_allclose(found, slow_mlp(x, in_float64(params)), atol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_block_normalises_with_an_epsilon_of_one_millionth(size):
    x = size * normal((2, 5, 16))  # at 1e-3 the variance is about epsilon
    module = Block(heads=2)
    params = params_of(module, x)
    found = module.apply({"params": params}, x)
    np.testing.assert_allclose(found, slow_block(x, in_float64(params), heads=2), atol=2e-5)


@pytest.mark.parametrize(
    ("size_px", "taps", "options"),
    [
        ((42, 42), (0, 1, 2), {}),
        ((28, 70), (0, 2), {}),
        ((28, 70), (1, 2), {"registers": 4}),
        ((42, 42), (2,), {"registers": 1, "swiglu": True}),
    ],
)
def test_encoder_equals_the_slow_reference(size_px, taps, options):
    image = normal((2, *size_px, 3))
    module = Encoder(blocks=3, taps=taps, **SMALL, **options)
    params = params_of(module, image)
    found = jax.jit(module.apply)({"params": params}, image)
    expected = slow_encoder(image.astype(np.float64), in_float64(params), 2, taps, side=3)
    assert len(found) == len(taps)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (2, size_px[0] // 14, size_px[1] // 14, 16)
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_giants_mlp_has_the_released_width():
    shapes = jax.eval_shape(SwiGlu().init, jax.random.key(0), normal((1, 2, 1536)))["params"]
    assert shapes["w12"]["kernel"].shape == (1536, 2 * 4096)
    assert shapes["w3"]["kernel"].shape == (4096, 1536)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_the_offset_of_positions_is_a_choice(offset):
    table = normal((1, 49, 5))
    found = jax.jit(resize_positions, static_argnums=1)(table, (5, 9), offset)
    np.testing.assert_allclose(found, slow_positions(table, 7, (5, 9), offset), atol=1e-4)


def test_antialiased_positions_average_over_what_a_coarse_grid_skips():
    noise = normal((1, 24**2, 50))
    plain = resize_positions(noise, (4, 6), 0.0)
    smooth = resize_positions(noise, (4, 6), 0.0, antialias=True)
    assert np.std(plain) > 0.7 and np.std(smooth) < 0.3
    ones = np.ones((1, 24**2, 1), np.float32)
    np.testing.assert_allclose(resize_positions(ones, (4, 6), 0.0, antialias=True), 1, atol=1e-5)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    x = normal((400, 3, 8))
    module = Block(heads=2, drop_path=0.25)
    params = params_of(module, x)
    params["scale2"] = np.zeros(8, np.float32)  # only the attention branch is looked at
    whole = np.asarray(module.apply({"params": params}, x)) - x
    rngs = {"drop_path": jax.random.key(0)}
    found = np.asarray(module.apply({"params": params}, x, True, rngs=rngs)) - x
    kept = np.abs(found).max(axis=(1, 2)) > 1e-6
    assert 0.65 < kept.mean() < 0.85
    np.testing.assert_allclose(found[kept], whole[kept] / 0.75, atol=1e-4)
    other = module.apply({"params": params}, x, True, rngs={"drop_path": jax.random.key(1)})
    assert np.abs(np.asarray(other) - x - found).max() > 0.1


def test_stochastic_depth_grows_with_depth_and_rests_outside_training():
    image = normal((64, 28, 28, 3))
    plain = Encoder(blocks=3, taps=(0, 1, 2), **SMALL)
    module = Encoder(blocks=3, taps=(0, 1, 2), drop_path=0.9, **SMALL)
    params = params_of(plain, image)
    expected = plain.apply({"params": params}, image)
    jax.tree.map(np.testing.assert_array_equal, module.apply({"params": params}, image), expected)
    rngs = {"drop_path": jax.random.key(0)}
    found = module.apply({"params": params}, image, train=True, rngs=rngs)
    changed = [
        (np.abs(one - other).max(axis=(1, 2, 3)) > 1e-6).mean()
        for one, other in zip(found, expected, strict=True)
    ]
    assert changed[0] == 0 and changed[1] > 0.5 and changed[2] > 0.9
