"""Every stage of the decoder against its formula in NumPy."""

import math

import jax
import numpy as np
import pytest

from dav.models.dpt import Decoder, Fusion, ResidualUnit, Upsample, conv

CHANNELS = (6, 5, 4, 7)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomise(params, seed=0):
    """Every leaf drawn anew: biases of 0 would hide a mistake."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 4
        return np.float32(rng.normal(size=leaf.shape) / math.sqrt(fan_in))

    return jax.tree.map(draw, params)


def params_of(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return randomise(shapes["params"])


def slow_conv(x, p, stride=1):
    """Convolution of x [B, y, x, C] padded by half its kernel on every side."""
    kernel = p["kernel"].astype(np.float64)
    pad = kernel.shape[0] // 2
    rows, columns = ((n + 2 * pad - kernel.shape[0]) // stride + 1 for n in x.shape[1:3])
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.zeros((x.shape[0], rows, columns, kernel.shape[3])) + p.get("bias", 0)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            seen = x[:, row : row + stride * rows : stride, column : column + stride * columns]
            out += seen[:, :, ::stride] @ kernel[row, column]
    return out


def slow_upsample(x, p):
    """The transposed convolution, by its definition: every pixel paints its own square."""
    factor, _, _, features = p["kernel"].shape
    batch, rows, columns, _ = x.shape
    out = np.zeros((batch, factor * rows, factor * columns, features))
    for y in range(rows):
        for x_ in range(columns):
            for i in range(factor):
                for j in range(factor):
                    out[:, factor * y + i, factor * x_ + j] = x[:, y, x_] @ p["kernel"][i, j]
    return out + p["bias"]


def slow_resize(x, size):
    """Bilinear with coinciding corners: NumPy's linear interpolation along either axis."""
    for axis, n_out in zip((1, 2), size, strict=True):
        n_in = x.shape[axis]
        at, grid = np.linspace(0, n_in - 1, n_out), np.arange(n_in)
        x = np.apply_along_axis(lambda line, at=at, g=grid: np.interp(at, g, line), axis, x)
    return x


def slow_unit(x, p):
    y = slow_conv(np.maximum(x, 0), p["conv1"])
    return x + slow_conv(np.maximum(y, 0), p["conv2"])


def slow_fusion(x, lateral, size, p):
    """In the released order: the 1×1 convolution behind the resize."""
    if lateral is not None:
        x = x + slow_unit(lateral, p["unit1"])
    return slow_conv(slow_resize(slow_unit(x, p["unit2"]), size), p["project"])


def slow_decoder(taps, p):
    maps = [slow_conv(x, p[f"project_{i}"]) for i, x in enumerate(taps, start=1)]
    maps[0] = slow_upsample(maps[0], p["resize_1"])
    maps[1] = slow_upsample(maps[1], p["resize_2"])
    maps[3] = slow_conv(maps[3], p["resize_4"], stride=2)
    lateral = [slow_conv(x, p[f"lateral_{i}"]) for i, x in enumerate(maps, start=1)]
    x = slow_fusion(lateral[3], None, lateral[2].shape[1:3], p["fusion_4"])
    x = slow_fusion(x, lateral[2], lateral[1].shape[1:3], p["fusion_3"])
    x = slow_fusion(x, lateral[1], lateral[0].shape[1:3], p["fusion_2"])
    rows, columns = taps[0].shape[1:3]
    x = slow_fusion(x, lateral[0], (8 * rows, 8 * columns), p["fusion_1"])
    x = slow_resize(slow_conv(x, p["output_1"]), (14 * rows, 14 * columns))
    x = np.maximum(slow_conv(x, p["output_2"]), 0)
    return np.maximum(slow_conv(x, p["output_3"]), 0)[..., 0]


@pytest.mark.parametrize("factor", [2, 4])
def test_upsample_is_the_transposed_convolution(factor):
    x = normal((2, 3, 4, 5))
    module = Upsample(6, factor)
    params = params_of(module, x)
    found = module.apply({"params": params}, x)
    np.testing.assert_allclose(found, slow_upsample(x, params), atol=1e-5)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (6, 7)])
def test_strided_convolution_pads_one_on_every_side(size):
    x = normal((2, *size, 3))
    module = conv(4, 3, np.float32, None, strides=2)
    params = params_of(module, x)
    found = module.apply({"params": params}, x)
    assert found.shape[1:3] == tuple((n + 1) // 2 for n in size)
    expected = slow_conv(x, params, stride=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # The top left output sees a row and a column of zeros, then the four first pixels.
    corner = np.einsum("byxi,yxio->bo", x[:, :2, :2], params["kernel"][1:, 1:]) + params["bias"]
    np.testing.assert_allclose(found[:, 0, 0], corner, atol=1e-5)


@pytest.mark.parametrize("kernel_px", [1, 3])
def test_convolution_keeps_the_size(kernel_px):
    x = normal((2, 4, 5, 3))
    module = conv(4, kernel_px, np.float32, None)
    params = params_of(module, x)
    found = module.apply({"params": params}, x)
    assert found.shape == (2, 4, 5, 4)
    np.testing.assert_allclose(found, slow_conv(x, params), atol=1e-5)


def test_residual_unit_adds_the_input_itself():
    x = normal((2, 5, 6, 4))
    params = params_of(ResidualUnit(4), x)
    found = ResidualUnit(4).apply({"params": params}, x)
    np.testing.assert_allclose(found, slow_unit(x, params), atol=1e-5)


@pytest.mark.parametrize("with_lateral", [True, False])
def test_fusion_may_project_before_the_resize(with_lateral):
    x = normal((2, 3, 4, 4))
    lateral = normal((2, 3, 4, 4), seed=1) if with_lateral else None
    module = Fusion(4, (5, 8))
    params = params_of(module, x, lateral)
    found = module.apply({"params": params}, x, lateral)
    np.testing.assert_allclose(found, slow_fusion(x, lateral, (5, 8), params), atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 2), (3, 5)])
def test_decoder_equals_the_slow_reference(grid):
    taps = [normal((2, *grid, 8), seed) for seed in range(4)]
    module = Decoder(features=8, reassemble=CHANNELS)
    params = params_of(module, taps)
    params["output_3"]["bias"] = np.float32([100])
    middle = 100 - np.median(slow_decoder(taps, params))
    params["output_3"]["bias"] = np.float32([middle])  # about half of the map is cut off
    found = np.asarray(jax.jit(module.apply)({"params": params}, taps))
    expected = slow_decoder(taps, params)
    assert found.shape == (2, 14 * grid[0], 14 * grid[1])
    assert 0.1 < (expected > 0).mean() < 0.9  # the last ReLU cuts some pixels, not all
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_never_used_unit_of_the_deepest_fusion_is_kept_and_has_no_influence():
    taps = [normal((1, 2, 2, 8)) for _ in range(4)]
    module = Decoder(features=8, reassemble=CHANNELS)
    params = params_of(module, taps)
    assert all(set(params[f"fusion_{i}"]) == {"unit1", "unit2", "project"} for i in (1, 2, 3, 4))
    without = jax.tree.map(np.copy, params)
    without["fusion_4"].pop("unit1")
    apply = jax.jit(module.apply)
    np.testing.assert_array_equal(apply({"params": params}, taps), apply({"params": without}, taps))


def test_metric_depth_is_a_sigmoid_times_its_limit():
    taps = [normal((1, 3, 4, 8), seed) for seed in range(4)]
    module = Decoder(features=8, reassemble=CHANNELS, max_depth_m=80.0)
    params = params_of(module, taps)
    params["output_3"]["bias"] = np.float32([100])
    raw = slow_decoder(taps, params) - 100
    params["output_3"]["bias"] = np.float32([0.5])
    found = module.apply({"params": params}, taps)
    np.testing.assert_allclose(found, 80 / (1 + np.exp(-(raw + 0.5))), rtol=1e-4)


def test_the_lateral_convolutions_have_no_bias():
    params = params_of(Decoder(features=8, reassemble=CHANNELS), [normal((1, 2, 2, 8))] * 4)
    assert set(params["lateral_1"]) == {"kernel"}  # no bias
