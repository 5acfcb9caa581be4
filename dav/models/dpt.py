"""The DPT decoder (arXiv 2103.13413) in the form that Depth Anything uses.

Shapes: B batch, h w patch grid, D encoder width, F features, c_i reassemble channels.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from dav.models.convolution import convolve
from dav.models.placement import split_batch
from dav.models.remat import recomputed_stage
from dav.models.resize import resize_bilinear
from dav.models.vit import PATCH_PX

# The last layer of a fresh network must not be negative everywhere: behind the ReLU no gradient
# would ever reach it. Any positive constant will do, the losses ignore shift.
LAST_BIAS = 1.0


class Decoder(nn.Module):
    """Four token maps [B, h, w, D], shallow to deep → float32 [B, 14 h, 14 w].

    Disparity ≥ 0 through a ReLU; or with `max_depth_m` depth in metres, max_depth_m · sigmoid, as
    Depth Anything V2's metric models (arXiv 2406.09414). The last resize and layers are float32
    whatever `dtype` is: there, rounding shows as banding.
    """

    features: int
    reassemble: tuple[int, int, int, int]
    max_depth_m: float | None = None
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, taps):
        grid = taps[0].shape[1:3]
        maps = [self._reassemble(x.astype(self.dtype), i) for i, x in enumerate(taps)]
        lateral = [
            self._conv(self.features, f"lateral_{i + 1}", bias=False)(x) for i, x in enumerate(maps)
        ]
        x = self._fuse(lateral[3], None, lateral[2].shape[1:3], "fusion_4")
        x = self._fuse(x, lateral[2], lateral[1].shape[1:3], "fusion_3")
        x = self._fuse(x, lateral[1], lateral[0].shape[1:3], "fusion_2")
        x = self._fuse(x, lateral[0], tuple(2 * n for n in lateral[0].shape[1:3]), "fusion_1")
        head = recomputed_stage(Decoder._head, self.remat, static_argnums=(2,))
        return head(self, x, tuple(PATCH_PX * n for n in grid))

    def _head(self, x, size):
        """[B, 8 h, 8 w, F] → the map, float32 [B, H, W]."""
        x = self._conv(self.features // 2, "output_1")(x).astype(jnp.float32)
        x = resize_bilinear(x, size)
        x = nn.relu(conv(32, 3, jnp.float32, "output_2")(x))
        bias = nn.initializers.constant(0.0 if self.max_depth_m else LAST_BIAS)
        x = WeightedSum(bias, name="output_3")(x)  # [B, H, W]
        return self.max_depth_m * nn.sigmoid(x) if self.max_depth_m else nn.relu(x)

    def _reassemble(self, x, index):
        """Tap `index` at 4, 2, 1 or ½ times the patch grid, c_i channels."""
        channels = self.reassemble[index]
        x = conv(channels, 1, self.dtype, f"project_{index + 1}")(x)
        name = f"resize_{index + 1}"
        if index < 2:
            return Upsample(channels, (4, 2)[index], dtype=self.dtype, name=name)(x)
        return x if index == 2 else conv(channels, 3, self.dtype, name, strides=2)(x)

    def _conv(self, features, name, *, bias=True):
        return conv(features, 3, self.dtype, name, bias=bias)

    def _fuse(self, x, lateral, size, name):
        fusion = recomputed_stage(Fusion, self.remat)
        return fusion(self.features, size, dtype=self.dtype, name=name)(x, lateral)


class WeightedSum(nn.Module):
    """A 1×1 convolution to one channel, [B, H, W, C] → float32 [B, H, W]; written as a matrix
    product, which the CPU compiler handles four times faster."""

    bias_init: Callable

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", conv_init(), (1, 1, x.shape[-1], 1))
        bias = self.param("bias", self.bias_init, (1,))
        return (split_batch(x @ kernel[0, 0]) + bias)[..., 0]


class Upsample(nn.Module):
    """Transposed convolution with kernel = stride = factor: one matrix a pixel, then unfold."""

    features: int
    factor: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        batch, rows, columns, channels = x.shape
        shape = (self.factor, self.factor, channels, self.features)
        kernel = self.param("kernel", conv_init(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x = split_batch(jnp.einsum("brci,yxio->brycxo", x, kernel))
        return x.reshape(batch, self.factor * rows, self.factor * columns, self.features) + bias


class Fusion(nn.Module):
    """Adds a lateral map, refines, and resizes to `size`; the 1×1 convolution runs before the
    resize, with which it commutes, at a quarter of the cost."""

    features: int
    size: tuple[int, int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, lateral):
        if lateral is not None:
            x = x + ResidualUnit(self.features, dtype=self.dtype, name="unit1")(lateral)
        elif self.is_initializing():  # part of every checkpoint, never used
            ResidualUnit(self.features, dtype=self.dtype, name="unit1")(x)
        x = ResidualUnit(self.features, dtype=self.dtype, name="unit2")(x)
        x = conv(self.features, 1, self.dtype, "project")(x)
        return resize_bilinear(x, self.size)


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        y = conv(self.features, 3, self.dtype, "conv1")(nn.relu(x))
        return x + conv(self.features, 3, self.dtype, "conv2")(nn.relu(y))


def conv(features, kernel_px, dtype, name, *, strides=1, bias=True):
    """A convolution padded by half its kernel on every side, for odd and even sizes alike."""
    pad = kernel_px // 2
    return nn.Conv(
        features,
        (kernel_px, kernel_px),
        strides=strides,
        padding=((pad, pad), (pad, pad)),
        use_bias=bias,
        dtype=dtype,
        kernel_init=conv_init(),
        conv_general_dilated=_convolve,
        name=name,
    )


def _convolve(x, kernel, strides, padding, **_):
    return split_batch(convolve(split_batch(x), kernel, strides[0], padding[0][0]))


def conv_init():
    """U(±1/√fan_in), the default of the framework that the method was developed in."""
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
