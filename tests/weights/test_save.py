"""Export: bit for bit in the official layout; the same depth in transformers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from random_weights import TINY, random_official_state, random_weights
from safetensors.numpy import load_file

from dav.errors import ConfigError, DavError
from dav.models.depth_anything import SIZES, DepthAnything, make_encoder
from dav.weights.load import load_encoder, load_weights
from dav.weights.save import save_official, save_transformers

TOLERANCE = 1e-4  # float32 against float32
SIZE_PX = (28, 70)  # not the position table's own grid, not square, one side of even patches
SPREAD = (0, 2, 3, 5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dav_to_official_to_dav_is_bit_equal(tmp_path, suffix, registers):
    a = dataclasses.replace(TINY, registers=registers, swiglu=True, taps=SPREAD, max_depth_m=9.5)
    weights = random_weights(a, 0)
    path = tmp_path / f"any{suffix}"
    save_official(path, weights)
    found = load_weights(path)
    assert found.architecture == a
    jax.tree.map(np.testing.assert_array_equal, found.params, weights.params)
    again = tmp_path / f"again{suffix}"
    save_official(again, found)
    if suffix == ".safetensors":
        assert again.read_bytes() == path.read_bytes()
        state = random_official_state(a, 0)
        held = load_file(path)
        assert held.keys() == state.keys()
        for name, values in state.items():
            np.testing.assert_array_equal(held[name], values)


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_was_written_for_it(tmp_path, mmap):
    torch = pytest.importorskip("torch")
    path = tmp_path / "tiny.pth"
    save_official(path, random_weights(TINY, 0))
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    state = random_official_state(TINY, 0)
    assert list(loaded) == list(state)
    for name, values in state.items():
        np.testing.assert_array_equal(loaded[name].numpy(), values)


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def image(size_px):
    return np.random.default_rng(0).standard_normal((2, *size_px, 3)).astype(np.float32)


def apply(network, params, inputs):
    with jax.default_matmul_precision("highest"):
        return jax.jit(network.apply)({"params": params}, inputs)


def map_of(model, inputs):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())).predicted_depth.numpy()


@pytest.mark.parametrize("change", [{}, {"taps": SPREAD, "max_depth_m": 20.0, "swiglu": True}])
def test_official_to_dav_to_transformers_gives_the_same_depth(tmp_path, transformers, change):
    weights = random_weights(dataclasses.replace(TINY, **change), 0)
    save_official(tmp_path / "official.pth", weights)
    save_transformers(tmp_path / "folder", load_weights(tmp_path / "official.pth"))
    model, told = transformers.AutoModelForDepthEstimation.from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not any(told.values())
    own_px = (42, 42)  # the position table's own grid: both conventions agree
    expected = map_of(model, image(own_px))
    assert expected.std() > 0.01
    found, _ = apply(DepthAnything(weights.architecture), weights.params, image(own_px))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)

    back = load_weights(tmp_path / "folder")
    assert back.architecture == dataclasses.replace(weights.architecture, position_offset=0.0)
    jax.tree.map(np.testing.assert_array_equal, back.params, weights.params)
    found, _ = apply(DepthAnything(back.architecture), back.params, image(SIZE_PX))
    expected = map_of(model, image(SIZE_PX))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_encoders_of_transformers_give_the_same_tokens(tmp_path, transformers, registers, swiglu):
    import torch

    torch.manual_seed(0)
    options = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=1, image_size=42)
    options |= dict(patch_size=14, use_swiglu_ffn=swiglu, layerscale_value=0.3)
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    if registers:
        options["num_register_tokens"] = registers
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    params, architecture = load_encoder(tmp_path)
    assert (architecture.registers, architecture.swiglu) == (registers, swiglu)
    inputs = image(SIZE_PX)
    with torch.no_grad():
        tokens = model(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())).last_hidden_state
    expected = tokens[:, 1 + registers :].numpy().reshape(2, 2, 5, 64)
    found = apply(make_encoder(architecture), params, inputs)[-1]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    with pytest.raises(DavError, match="encoder without depth head"):
        load_weights(tmp_path)


def test_the_image_processor_reads_its_settings(tmp_path, transformers):
    save_transformers(tmp_path / "folder", random_weights(TINY, 0))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    assert type(processor).__name__.startswith("DPTImageProcessor")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 120, 3), np.uint8)
    values = processor(images=pixels, return_tensors="np")["pixel_values"]
    assert values.shape == (1, 3, 42, 84)


def test_the_mini_size_goes_to_transformers(tmp_path, transformers):
    save_transformers(tmp_path / "folder", random_weights(SIZES["mini"], 0))
    model, told = transformers.AutoModelForDepthEstimation.from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not any(told.values())
    values = sum(parameter.numel() for parameter in model.parameters())
    assert values == sum(leaf.size for leaf in random_official_state(SIZES["mini"], 0).values())


@pytest.mark.parametrize(
    ("change", "told"),
    [({"registers": 4}, "encoder with registers"), ({"max_depth_m": 7.5}, "whole metres")],
)
def test_what_transformers_does_not_have_is_refused(tmp_path, change, told):
    weights = random_weights(dataclasses.replace(TINY, **change), 0)
    with pytest.raises(DavError, match=told):
        save_transformers(tmp_path / "folder", weights)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    weights = random_weights(TINY, 0)
    official, folder = tmp_path / "a.safetensors", tmp_path / "folder"
    save_official(official, weights)
    save_transformers(folder, weights)
    before = official.read_bytes(), (folder / "model.safetensors").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    other = random_weights(TINY, 1)
    for save, target in ((save_official, official), (save_transformers, folder)):
        with pytest.raises(DavError, match="cannot write .*No space left on device"):
            save(target, other)
    assert before == (official.read_bytes(), (folder / "model.safetensors").read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "folder"]


def test_writing_again_replaces_own_files_only(tmp_path):
    folder = tmp_path / "folder"
    for seed in (0, 1):
        save_transformers(folder, random_weights(TINY, seed))
    found = load_weights(folder)
    jax.tree.map(np.testing.assert_array_equal, found.params, random_weights(TINY, 1).params)
    (folder / "notes.txt").touch()
    with pytest.raises(DavError, match="holds other files too"):
        save_transformers(folder, random_weights(TINY, 0))
    with pytest.raises(ConfigError, match="is a file"):
        save_official(tmp_path / "folder.onnx", random_weights(TINY, 0))
    assert json.loads((folder / "config.json").read_text())["model_type"] == "depth_anything"
