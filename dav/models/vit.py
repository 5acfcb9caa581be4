"""The DINOv2 vision transformer (arXiv 2304.07193), as the encoder of Depth Anything.

Shapes: B batch, H W image, h w patch grid, N = h * w + 1 tokens, D width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dav.models.attention import attend

PATCH_PX = 14
NORM_EPSILON = 1e-6


class Encoder(nn.Module):
    """Image [B, H, W, 3] → the tapped blocks' patch tokens, each after the final LayerNorm.

    H and W are multiples of PATCH_PX. Parameters are float32; `dtype` is that of the computation,
    but for LayerNorm and the softmax, which are float32 always.
    """

    width: int
    blocks: int
    heads: int
    taps: tuple[int, ...]  # 0-based, ascending; the last is the last block
    position_grid: int = 37  # side of the learned position table, in patches
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        """Returns one [B, h, w, D] map per tap, shallow to deep."""
        x = PatchEmbedding(self.width, dtype=self.dtype, name="patch_embed")(image)  # [B, h, w, D]
        batch, *grid, width = x.shape
        x = x.reshape(batch, -1, width)
        x = self._add_class_and_positions(x, tuple(grid))  # [B, N, D]
        norm = layer_norm("norm")
        tapped = []
        for index in range(self.blocks):
            x = Block(self.heads, dtype=self.dtype, name=f"block_{index:02d}")(x)
            if index in self.taps:
                tapped.append(norm(x)[:, 1:].reshape(batch, *grid, width))  # [B, h, w, D]
        return tapped

    def _add_class_and_positions(self, x, grid):
        init = nn.initializers.truncated_normal(0.02)
        table_shape = (1, self.position_grid**2 + 1, self.width)
        class_token = self.param("class_token", init, (1, 1, self.width))
        table = self.param("positions", init, table_shape)
        class_token = jnp.broadcast_to(class_token + table[:, :1], (x.shape[0], 1, self.width))
        x = x + resize_positions(table[:, 1:], self.position_grid, grid).astype(x.dtype)
        return jnp.concatenate([class_token.astype(x.dtype), x], axis=1)


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
        return jnp.einsum("brycxi,yxio->brco", x, kernel) + bias


def resize_positions(table, side, grid):
    """Bicubic resize of a position table [1, side², D] to [1, h * w, D] for grid (h, w).

    The sample positions follow the released encoder, whose scale has 0.1 added to the grid
    (docs of the authors' code: "interpolate_offset"); the table's own grid is left as it is.
    """
    if grid == (side, side):
        return table
    width = table.shape[-1]
    scale = (jnp.asarray(grid, jnp.float32) + 0.1) / side
    resized = jax.image.scale_and_translate(
        table.reshape(1, side, side, width),
        (1, *grid, width),
        (1, 2),
        scale,
        jnp.zeros(2),
        "cubic-pytorch",
        antialias=False,
    )
    return resized.reshape(1, -1, width)


class Block(nn.Module):
    """x + γ₁ · attention(norm(x)), then x + γ₂ · MLP(norm(x)); [B, N, D] → [B, N, D]."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = x + self._scale(
            Attention(self.heads, dtype=self.dtype, name="attn")(self._norm(x, 1)), 1
        )
        return x + self._scale(Mlp(dtype=self.dtype, name="mlp")(self._norm(x, 2)), 2)

    def _norm(self, x, index):
        return layer_norm(f"norm{index}")(x).astype(self.dtype)

    def _scale(self, x, index):
        gamma = self.param(f"scale{index}", nn.initializers.ones, (x.shape[-1],))
        return x * gamma.astype(x.dtype)


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
        return dense(width, self.dtype, "fc2")(nn.gelu(x, approximate=False))


def layer_norm(name):
    """LayerNorm in float32, its variance taken about the mean: one pass would lose digits."""
    return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=jnp.float32, use_fast_variance=False, name=name)


def dense(features, dtype, name):
    """A linear layer as DINOv2 initialises it."""
    init = nn.initializers.truncated_normal(0.02)
    return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)
