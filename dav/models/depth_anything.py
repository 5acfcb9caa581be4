"""Depth Anything (arXiv 2401.10891): a DINOv2 encoder and a DPT decoder.

Shapes: B batch, H W image, h w patch grid, D width.
"""

import dataclasses
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from dav.models.dpt import Decoder
from dav.models.vit import Encoder

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of the computation, by name
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """What makes one network of the family; a checkpoint's shapes and file give all of it."""

    width: int
    blocks: int
    heads: int
    taps: tuple[int, ...]  # 0-based indices of the blocks that feed the decoder
    features: int
    reassemble: tuple[int, int, int, int]
    position_grid: int = 37
    position_offset: float = 0.1
    position_antialias: bool = False
    registers: int = 0
    swiglu: bool = False
    max_depth_m: float | None = None  # the metric head's; None: relative disparity


# The published sizes with the taps of V1; "mini" is ours, for tests and the quick start.
SIZES = {
    "mini": Architecture(192, 6, 3, (2, 3, 4, 5), 32, (24, 48, 96, 192), position_grid=14),
    "vits": Architecture(384, 12, 6, (8, 9, 10, 11), 64, (48, 96, 192, 384)),
    "vitb": Architecture(768, 12, 12, (8, 9, 10, 11), 128, (96, 192, 384, 768)),
    "vitl": Architecture(1024, 24, 16, (20, 21, 22, 23), 256, (256, 512, 1024, 1024)),
    "vitg": Architecture(
        1536, 40, 24, (36, 37, 38, 39), 384, (1536, 1536, 1536, 1536), swiglu=True
    ),
}
V2_TAPS = {
    "mini": (1, 2, 4, 5),
    "vits": (2, 5, 8, 11),
    "vitb": (2, 5, 8, 11),
    "vitl": (4, 11, 17, 23),
    "vitg": (9, 19, 29, 39),
}


def architecture_of(size, version):
    """The network of a published size (or `mini`): of V1, or of V2, whose head reads blocks
    further apart."""
    return SIZES[size] if version == 1 else dataclasses.replace(SIZES[size], taps=V2_TAPS[size])


class DepthAnything(nn.Module):
    """Normalised image float [B, H, W, 3] → map and tokens.

    The map is float32 [B, H, W]: disparity ≥ 0, larger = nearer, of any scale and shift; or with
    `max_depth_m` depth in metres. The tokens are the last tap's patches, float32 [B, h, w, D].
    """

    architecture: Architecture
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    drop_path: float = 0.0

    def setup(self):
        a = self.architecture
        self.encoder = make_encoder(a, dtype=self.dtype, remat=self.remat, drop_path=self.drop_path)
        self.decoder = Decoder(
            a.features, a.reassemble, a.max_depth_m, remat=self.remat, dtype=self.dtype
        )

    def __call__(self, image, *, train=False):
        taps = self.encoder(image, train=train)
        return self.decoder(taps), taps[-1]


def make_encoder(architecture, **options):
    """The encoder alone; its parameters are those under `encoder` of the whole model's."""
    return Encoder(
        architecture.width,
        architecture.blocks,
        architecture.heads,
        architecture.taps,
        architecture.position_grid,
        architecture.position_offset,
        architecture.position_antialias,
        architecture.registers,
        architecture.swiglu,
        **options,
    )


def normalise(image):
    """RGB in [0, 1], float32 [..., 3] → zero mean and unit deviation over ImageNet."""
    return (image - jnp.asarray(MEAN_RGB)) / jnp.asarray(STD_RGB)
