"""What a network costs: floating-point operations, and the rate of the machine at hand.

Shapes: h w patch grid, N = h * w + 1 tokens, D width, F decoder features.
"""

import functools
import time

import jax
import jax.numpy as jnp

from dav.models.vit import PATCH_PX

# Share of the rate of a large matrix product that a training step reaches, for estimates before
# anything has run: measured for the small network on CPU; a cautious guess for accelerators.
EXPECTED_SHARE = {"cpu": 0.35}
EXPECTED_SHARE_ELSEWHERE = 0.3


def encoder_flops(size, grid):
    """Operations (2 a multiply-add) of one image's pass through the encoder."""
    patches = grid[0] * grid[1]
    tokens, width = patches + 1, size.width
    linear = 2 * tokens * 12 * width**2
    attention = 4 * tokens**2 * width
    return size.blocks * (linear + attention) + 2 * patches * 3 * PATCH_PX**2 * width


def decoder_flops(size, grid):
    """Operations of one image's pass through the decoder, resizes left out."""
    h, w = grid
    patches, features = h * w, size.features
    areas = (16 * patches, 4 * patches, patches, ((h + 1) // 2) * ((w + 1) // 2))
    total = sum(2 * patches * size.width * c for c in size.reassemble)
    first, second, _, last = size.reassemble
    total += 2 * patches * (16 * first**2 + 4 * second**2) + 2 * areas[3] * 9 * last**2
    total += sum(
        2 * area * 9 * c * features for area, c in zip(areas, size.reassemble, strict=True)
    )
    # Two residual units of two convolutions a fusion, one unit in the deepest, and a projection.
    total += sum(2 * area * features**2 * (36 if i < 3 else 18) for i, area in enumerate(areas))
    total += sum(2 * area * features**2 for area in areas)
    pixels = patches * PATCH_PX**2
    total += 2 * 64 * patches * 9 * features * features // 2
    return total + 2 * pixels * (9 * features // 2 * 32 + 32)


def training_flops(size, grid, images, *, frozen_images=0):
    """Operations of one step: forward and twice as much backward, and the frozen encoder."""
    forward = encoder_flops(size, grid) + decoder_flops(size, grid)
    return 3 * images * forward + frozen_images * encoder_flops(size, grid)


@functools.cache
def matmul_flops_per_s(side=1024, seconds=0.2):
    """The rate of a large float32 matrix product on this machine's devices together."""
    x = jnp.ones((side, side))
    multiply = jax.jit(lambda x: x @ x)
    multiply(x).block_until_ready()
    begin, runs = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        multiply(x).block_until_ready()
        runs += 1
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    return devices * runs * 2 * side**3 / (time.monotonic() - begin)


def expected_seconds(flops):
    """A rough forecast, before anything has run."""
    share = EXPECTED_SHARE.get(jax.default_backend(), EXPECTED_SHARE_ELSEWHERE)
    return flops / (matmul_flops_per_s() * share)
