"""What a network costs: floating-point operations, and the rate of the machine at hand.

MFU (model FLOPs utilisation, arXiv 2204.02311, appendix B) is the operations that a step's
mathematics needs, over its time and the devices' peak rate: nothing that is computed again to save
memory counts, no loss, resize or normalisation, and attention counts in full.

Shapes: h w patch grid, N = h * w + 1 tokens, D width, F decoder features.
"""

import functools
import re
import time

import jax
import jax.numpy as jnp

from dav.models.vit import PATCH_PX

# Share of the rate of a large matrix product that a training step reaches, for estimates before
# anything has run: measured for the small network on CPU; a cautious guess for accelerators.
EXPECTED_SHARE = {"cpu": 0.35}
EXPECTED_SHARE_ELSEWHERE = 0.3

# Dense bfloat16 TFLOP/s by jax's name of the device, in lower case, the first match counts.
# NVIDIA: as others quote its data sheets, figures "with sparsity" halved; A10 and the RTX cards,
# accumulating in float32, are the least certain. The laptop cards of the same names are others.
GPU_PEAKS = (
    (r"gb200", 2500),
    (r"b200", 2250),
    (r"h[12]00 nvl", 835.5),
    (r"h100 pcie", 756.5),
    (r"g?h[12]00", 989.5),
    (r"a100", 312),
    (r"a10", 125),
    (r"l40s", 362),
    (r"l40", 181),
    (r"l4", 121),
    (r"rtx 3090", 71.2),
    (r"rtx 4090", 165.2),
    (r"rtx 5090", 209.5),
)
# By chip, with the number of its cores: jax shows a core, or two as one device. Google's pages of
# Cloud TPU (docs.cloud.google.com/tpu/docs/v4 … /tpu7x); names as in jax's own tpu_info.
TPU_PEAKS = {
    "tpu v4": (275, 2),
    "tpu v5 lite": (197, 1),
    "tpu v5e": (197, 1),
    "tpu v5": (459, 2),
    "tpu v5p": (459, 2),
    "tpu v6 lite": (918, 1),
    "tpu v6e": (918, 1),
    "tpu7x": (2307, 2),
}


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


def peak_flops_per_s():
    """The peak rate of all devices together, or None for a kind that is in no table here. On CPU,
    which has no such figure, that of a large matrix product."""
    return peak_of(jax.devices())


def peak_of(devices):
    """The same of some devices, be they here or not."""
    if devices[0].platform == "cpu":
        return matmul_flops_per_s()
    peaks = [device_peak(d.device_kind, getattr(d, "num_cores", None)) for d in devices]
    return None if None in peaks else sum(peaks)


def device_peak(kind, cores=None):
    """Dense bfloat16 operations a second of one device, or None. `kind` is jax's device_kind,
    `cores` how many of a TPU chip's cores are this device; None: all."""
    kind = kind.lower()
    if kind in TPU_PEAKS:
        tflops, cores_of_chip = TPU_PEAKS[kind]
        return tflops * 1e12 * (cores or cores_of_chip) / cores_of_chip
    if "laptop" in kind or "max-q" in kind:
        return None
    hits = (tflops * 1e12 for name, tflops in GPU_PEAKS if re.search(rf"\b{name}\b(?! d\b)", kind))
    return next(hits, None)


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


def expected_share(devices):
    """The share of their peak rate that a training step is expected to reach on such devices."""
    return EXPECTED_SHARE.get(devices[0].platform, EXPECTED_SHARE_ELSEWHERE)
