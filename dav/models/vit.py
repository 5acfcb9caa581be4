"""The DINOv2 vision transformer (arXiv 2304.07193), as the encoder of Depth Anything.

Shapes: B batch, H W image, h w patch grid, N = 1 + registers + h * w tokens, D width.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dav.models.attention import attend
from dav.models.norm import LayerNorm
from dav.models.placement import split_batch
from dav.models.remat import named_product, recomputed_block

PATCH_PX = 14


class Encoder(nn.Module):
    """Image [B, H, W, 3] → the tapped blocks' patch tokens, each after the final LayerNorm.

    H and W are multiples of PATCH_PX. Parameters are float32; `dtype` is that of the computation,
    but for LayerNorm and the softmax, which are float32 always. Registers are extra tokens without
    a position, between the class token and the patches (arXiv 2309.16588).
    """

    width: int
    blocks: int
    heads: int
    taps: tuple[int, ...]  # 0-based, ascending
    position_grid: int = 37  # side of the learned position table, in patches
    position_offset: float = 0.1
    position_antialias: bool = False
    registers: int = 0
    swiglu: bool = False
    drop_path: float = 0.0  # of the last block; from 0 in the first, linearly
    remat: str = "none"  # what the backward pass computes anew: dav.models.remat
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image, *, train=False):
        """Returns one [B, h, w, D] map per tap, shallow to deep.

        Stochastic depth acts if `train`; it draws from the rng stream "drop_path".
        """
        x = PatchEmbedding(self.width, dtype=self.dtype, name="patch_embed")(image)  # [B, h, w, D]
        batch, *grid, width = x.shape
        x = x.reshape(batch, -1, width)
        x = split_batch(self._assemble(x, tuple(grid)))  # [B, N, D]
        norm = LayerNorm(name="norm")
        block = recomputed_block(Block, self.remat, static_argnums=(2,))
        tapped = []
        for index in range(self.blocks):
            rate = self.drop_path * index / max(self.blocks - 1, 1)
            name = f"block_{index:02d}"
            x = block(self.heads, self.swiglu, rate, dtype=self.dtype, name=name)(x, train)
            if index in self.taps:
                tapped.append(norm(x)[:, 1 + self.registers :].reshape(batch, *grid, width))
        return tapped

    def _assemble(self, x, grid):
        """Patches [B, h * w, D] → class token, registers, patches with their positions."""
        init = nn.initializers.truncated_normal(0.02)
        table_shape = (1, self.position_grid**2 + 1, self.width)
        class_token = self.param("class_token", init, (1, 1, self.width))
        table = self.param("positions", init, table_shape)
        extra = [class_token + table[:, :1]]
        if self.registers:
            extra.append(self.param("registers", init, (1, self.registers, self.width)))
        # DINOv2's stand-in for masked patches: part of every checkpoint, not used here.
        self.param("mask_token", nn.initializers.zeros, (1, self.width))
        positions = resize_positions(
            table[:, 1:], grid, self.position_offset, antialias=self.position_antialias
        )
        extra = jnp.concatenate(extra, axis=1).astype(x.dtype)
        extra = jnp.broadcast_to(extra, (x.shape[0], *extra.shape[1:]))
        return jnp.concatenate([extra, x + positions.astype(x.dtype)], axis=1)


class PatchEmbedding(nn.Module):
    """The strided convolution of a ViT as one matrix product: its patches do not overlap."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        batch, height, width, channels = image.shape
        rows, columns = height // PATCH_PX, width // PATCH_PX
        shape = (PATCH_PX, PATCH_PX, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
        x = image.astype(self.dtype).reshape(batch, rows, PATCH_PX, columns, PATCH_PX, channels)
        return split_batch(jnp.einsum("brycxi,yxio->brco", x, kernel)) + bias


def resize_positions(table, grid, offset, *, antialias=False):
    """Bicubic resize of a position table [1, side², D] to [1, h * w, D] for grid (h, w).

    Frameworks differ. DINOv2 and Depth Anything as released sample at (grid + 0.1) / side, an
    offset meant against rounding; DINOv2 with registers without offset, but antialiased;
    transformers without offset. The table's own grid is left as it is in all of them.
    """
    side, width = math.isqrt(table.shape[1]), table.shape[-1]
    if grid == (side, side):
        return table
    scale = (jnp.asarray(grid, jnp.float32) + offset) / side
    resized = jax.image.scale_and_translate(
        table.reshape(1, side, side, width),
        (1, *grid, width),
        (1, 2),
        scale,
        jnp.zeros(2),
        "cubic" if antialias else "cubic-pytorch",
        antialias=antialias,
        precision=jax.lax.Precision.HIGHEST,
    )
    return resized.reshape(1, -1, width)


class Block(nn.Module):
    """x + γ₁ · attention(norm(x)), then x + γ₂ · MLP(norm(x)); [B, N, D] → [B, N, D]."""

    heads: int
    swiglu: bool = False
    drop_path: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        attention = Attention(self.heads, dtype=self.dtype, name="attn")
        mlp = (SwiGlu if self.swiglu else Mlp)(dtype=self.dtype, name="mlp")
        x = x + self._branch(attention(self._norm(x, 1)), 1, train)
        return x + self._branch(mlp(self._norm(x, 2)), 2, train)

    def _norm(self, x, index):
        return LayerNorm(name=f"norm{index}")(x).astype(self.dtype)

    def _branch(self, x, index, train):
        """Scales a residual branch; in training drops it for some images (stochastic depth)."""
        gamma = self.param(f"scale{index}", nn.initializers.ones, (x.shape[-1],))
        x = x * gamma.astype(x.dtype)
        if not train or self.drop_path == 0:
            return x
        kept = 1 - self.drop_path
        mask = jax.random.bernoulli(self.make_rng("drop_path"), kept, (x.shape[0], 1, 1))
        return jnp.where(mask, x / kept, 0).astype(x.dtype)


class Attention(nn.Module):
    """Self-attention with one fused projection to q, k and v, in this order."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        batch, tokens, width = x.shape
        qkv = dense(3 * width, self.dtype, "qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        x = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return dense(width, self.dtype, "proj")(x.reshape(batch, tokens, width))


class Mlp(nn.Module):
    """D → 4D → exact GELU → D."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        x = dense(4 * width, self.dtype, "fc1")(x)
        # By erf: jax.nn.gelu's erfc costs twice as much on CPU.
        x = x * (0.5 + 0.5 * jax.lax.erf(x * np.float32(0.5**0.5).astype(x.dtype)))
        return dense(width, self.dtype, "fc2")(x)


class SwiGlu(nn.Module):
    """D → a | b → silu(a) · b → D: the MLP of the giant size (arXiv 2002.05202)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        gate_and_value = dense(2 * swiglu_width(width), self.dtype, "w12")(x)
        gate, value = jnp.split(gate_and_value, 2, axis=-1)
        return dense(width, self.dtype, "w3")(nn.silu(gate) * value)


def swiglu_width(width):
    """Hidden channels of SwiGlu: two thirds of an Mlp's, rounded up to a multiple of 8."""
    return (int(4 * width * 2 / 3) + 7) // 8 * 8


def dense(features, dtype, name):
    """A linear layer as DINOv2 initialises it."""
    init = nn.initializers.truncated_normal(0.02)
    return nn.Dense(features, dtype=dtype, kernel_init=init, dot_general=product, name=name)


def product(x, kernel, dimension_numbers, precision=None):
    """x [B, N, D] · kernel [D, E] → [B, N, E]; nn.Dense's one product, so the dimensions are these.

    On a CPU as one product of two matrices, whose gradient XLA then computes without copies that
    take a tenth of a training step; elsewhere N, no multiple of a tile, had better stay by itself.
    """
    return named_product(split_batch(_product(split_batch(x), kernel, precision)))


@functools.partial(jax.jit, static_argnums=2)
def _product(x, kernel, precision):
    def whole(x, kernel):
        return jnp.dot(x, kernel, precision=precision)

    def flat(x, kernel):
        return whole(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])

    return jax.lax.platform_dependent(x, kernel, cpu=flat, default=whole)
