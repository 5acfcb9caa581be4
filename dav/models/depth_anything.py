"""Depth Anything (arXiv 2401.10891): a DINOv2 encoder and a DPT decoder.

Shapes: B batch, H W image, h w patch grid, D width.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from dav.models.dpt import Decoder
from dav.models.vit import Encoder

MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Size:
    """The numbers that make one network of the family."""

    width: int
    blocks: int
    heads: int
    taps: tuple[int, ...]
    features: int
    reassemble: tuple[int, int, int, int]
    position_grid: int = 37


SIZES = {
    "mini": Size(192, 6, 3, (2, 3, 4, 5), 32, (24, 48, 96, 192), position_grid=14),
    "vits": Size(384, 12, 6, (8, 9, 10, 11), 64, (48, 96, 192, 384)),
    "vitb": Size(768, 12, 12, (8, 9, 10, 11), 128, (96, 192, 384, 768)),
    "vitl": Size(1024, 24, 16, (20, 21, 22, 23), 256, (256, 512, 1024, 1024)),
}


class DepthAnything(nn.Module):
    """Normalised image float [B, H, W, 3] → disparity and tokens.

    Returns disparity float32 [B, H, W], ≥ 0, larger = nearer, of any scale and shift, and the
    patch tokens float32 [B, h, w, D] after the encoder's final LayerNorm.
    """

    size: Size
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder = make_encoder(self.size, self.dtype)
        self.decoder = Decoder(self.size.features, self.size.reassemble, dtype=self.dtype)

    def __call__(self, image):
        taps = self.encoder(image)
        return self.decoder(taps), taps[-1]


def make_encoder(size, dtype=jnp.float32):
    """The encoder alone; its parameters are those under `encoder` of the whole model's."""
    return Encoder(size.width, size.blocks, size.heads, size.taps, size.position_grid, dtype=dtype)


def normalise(image):
    """RGB in [0, 1], float32 [..., 3] → zero mean and unit deviation over ImageNet."""
    return (image - jnp.asarray(MEAN_RGB)) / jnp.asarray(STD_RGB)
