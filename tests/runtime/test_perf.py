import jax
import pytest

from dav.models.depth_anything import SIZES
from dav.models.dpt import Decoder
from dav.runtime import perf

GRID = (37, 37)  # of 518×518


@pytest.mark.parametrize(("size", "encoder"), [("vits", 93), ("vitb", 303), ("vitl", 1014)])
def test_encoder_operations_agree_with_the_published_count(size, encoder):
    """GFLOP a pass; 92 to 1012 are quoted where the patch embedding is left out."""
    assert perf.encoder_flops(SIZES[size], GRID) / 1e9 == pytest.approx(encoder, abs=0.5)


@pytest.mark.parametrize("size", ["vits", "vitb", "vitl"])
def test_decoder_operations_agree_with_the_compilers_count(size):
    numbers = SIZES[size]
    decoder = Decoder(numbers.features, numbers.reassemble)
    taps = [jax.ShapeDtypeStruct((1, *GRID, numbers.width), "float32")] * 4
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), taps)
    counted = jax.jit(decoder.apply).lower(shapes, taps).cost_analysis()["flops"]
    assert perf.decoder_flops(numbers, GRID) == pytest.approx(counted, rel=0.02)


def test_a_step_costs_three_forward_passes_and_the_frozen_encoder():
    mini = SIZES["mini"]
    forward = perf.encoder_flops(mini, (14, 14)) + perf.decoder_flops(mini, (14, 14))
    step = perf.training_flops(mini, (14, 14), 12, frozen_images=8)
    assert step == 36 * forward + 8 * perf.encoder_flops(mini, (14, 14))
