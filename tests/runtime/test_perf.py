import functools
import types

import jax
import jax.numpy as jnp
import pytest

from dav.models.depth_anything import SIZES, Architecture, DepthAnything, make_encoder
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


def test_operations_of_a_step_agree_with_the_compilers_count(monkeypatch):
    """Of a student's step, as to networks: three images, two of them through the frozen encoder
    too. What is counted is the step as it is written down, before it is compiled, and as it is for
    accelerators: a CPU's loop over rows would be counted once."""

    def for_accelerators(*given, default, **_):
        return default(*given)

    monkeypatch.setattr(jax.lax, "platform_dependent", for_accelerators)
    images, frozen_images = 3, 2
    size = Architecture(384, 4, 6, (0, 1, 2, 3), 64, (48, 96, 192, 384))
    model, encoder = DepthAnything(size), make_encoder(size)
    x = jax.ShapeDtypeStruct((images, 126, 168, 3), "float32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, x):
        disparity, tokens = model.apply(params, x)
        frozen = {"params": jax.lax.stop_gradient(params["params"]["encoder"])}
        own = encoder.apply(frozen, x[:frozen_images])[-1]
        return jnp.sum(disparity) + jnp.sum(tokens) + jnp.sum(own)

    counted = jax.jit(jax.value_and_grad(loss)).lower(shapes, x).cost_analysis()["flops"]
    ours = perf.training_flops(size, (9, 12), images, frozen_images=frozen_images)
    assert ours == pytest.approx(counted, rel=0.04)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_peaks_are_found_by_the_name_of_the_device(kind, tflops):
    assert perf.device_peak(kind) == pytest.approx(tflops * 1e12)


def test_a_core_of_a_chip_has_its_share():
    assert perf.device_peak("TPU7x", cores=1) == pytest.approx(2307e12 / 2)
    assert perf.device_peak("TPU v5p", cores=2) == pytest.approx(459e12)


@pytest.mark.parametrize(
    "kind", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA A10G", "x"]
)
def test_other_devices_have_no_peak(kind):
    assert perf.device_peak(kind) is None


def test_one_unknown_device_makes_the_whole_unknown(monkeypatch):
    kinds = ["NVIDIA L4", "NVIDIA L4"]
    gpu = functools.partial(types.SimpleNamespace, platform="gpu")
    monkeypatch.setattr(perf.jax, "devices", lambda: [gpu(device_kind=kind) for kind in kinds])
    assert perf.peak_flops_per_s() == pytest.approx(2 * 121e12)
    kinds.append("abacus")
    assert perf.peak_flops_per_s() is None
