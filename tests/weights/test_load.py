"""Which network a checkpoint holds, from every kind of place that weights come from."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from random_weights import TINY, random_official_state, random_weights
from safetensors.numpy import load_file, save_file

from dav.errors import ConfigError, DavError
from dav.models.depth_anything import SIZES, V2_TAPS, DepthAnything
from dav.step import TrainState
from dav.weights.load import load_encoder, load_weights, seen_size_px
from dav.weights.save import save_official, save_transformers
from dav.weights.torch_write import write_torch

EXTRA = Path(os.environ.get("DAV_EXTRA_DATA") or Path(__file__).parents[2].parent / "shared")
RELEASE = EXTRA / "weights" / "depth_anything_v2_vits.fp16.safetensors"
STATE = random_official_state(TINY, 0)
V2 = dataclasses.replace(TINY, taps=(1, 2, 4, 5))
V1_NAME = "depth_anything_vits14"


def refused(path, load=load_weights):
    """The sentence with which a spec is refused; it names the spec."""
    with pytest.raises(DavError) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (V1_NAME, TINY),
        ("depth_anything_vitl14.fp16", TINY),
        ("depth_anything_v2_vits", V2),
        ("depth_anything_v2_vitb (1)", V2),
        (
            "depth_anything_v2_metric_hypersim_vits",
            dataclasses.replace(V2, max_depth_m=20.0),
        ),
        ("depth_anything_v2_metric_vkitti_vitl", dataclasses.replace(V2, max_depth_m=80.0)),
    ],
)
def test_an_official_file_is_known_by_the_name_of_its_release(tmp_path, name, expected, suffix):
    path = tmp_path / (name + suffix)
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        write_torch(path, STATE, root="archive", record="")
    weights = load_weights(path)
    assert weights.architecture == expected
    assert weights.source == str(path)
    kernel = weights.params["decoder"]["resize_1"]["kernel"]
    theirs = STATE["depth_head.resize_layers.0.weight"]
    np.testing.assert_array_equal(kernel, theirs.transpose(2, 3, 0, 1))


@pytest.mark.parametrize(
    "name", ["model", "depth_anything", "my_depth_anything_v2_vits", "depth_anything_v2_vits_kitti"]
)
def test_an_official_file_of_another_name_is_not_guessed(tmp_path, name):
    save_file(STATE, tmp_path / f"{name}.safetensors")
    told = refused(tmp_path / f"{name}.safetensors")
    assert "does not tell which network" in told and "depth_anything_v2_vitl" in told


def test_the_name_inside_an_archive_tells_as_well(tmp_path):
    write_torch(tmp_path / "renamed.pth", STATE, root="depth_anything_v2_vits", record="")
    assert load_weights(tmp_path / "renamed.pth").architecture == V2


def test_what_dav_wrote_needs_no_name(tmp_path):
    odd = dataclasses.replace(TINY, taps=(0, 1, 2, 5), max_depth_m=7.5, position_offset=0.0)
    for name in ("depth_anything_vits14.safetensors", "whatever.pth"):
        save_official(tmp_path / name, random_weights(odd, 1))
        assert load_weights(tmp_path / name).architecture == odd


@pytest.mark.parametrize(
    "change",
    [{"taps": [0, 1, 2, 9]}, {"taps": "abcd"}, {"blocks": 7}, {"max_depth_m": -1}, {"more": 1}],
)
def test_a_record_that_contradicts_the_tensors_is_refused(tmp_path, change):
    record = json.dumps(dataclasses.asdict(TINY) | change)
    save_file(STATE, tmp_path / "noted.safetensors", {"dav.architecture": record})
    assert "noted in it is damaged" in refused(tmp_path / "noted.safetensors")


@pytest.mark.parametrize("size", ["mini", "vitb", "vitg"])
def test_every_size_is_inferred_from_its_shapes(tmp_path, size):
    """Shapes alone: the tensors are views of one number."""
    from dav.weights.architecture import find_layout, infer
    from dav.weights.checkpoint import Checkpoint
    from dav.weights.keys import LAYOUTS, make_table

    for layout in LAYOUTS[:2]:
        architecture = dataclasses.replace(SIZES[size], taps=V2_TAPS[size])
        tensors = {
            key: np.broadcast_to(np.float32(0), (row.shape[0] // len(row.keys), *row.shape[1:]))
            for row in make_table(architecture, layout)
            for key in row.keys
        }
        stages = [tap + 1 for tap in V2_TAPS[size]]
        config = {"backbone_config": {"out_indices": stages}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        held = Checkpoint("x", tensors, ("depth_anything_v2_vitb.pth",), tmp_path, "")
        assert find_layout(held) == layout
        offset = 0.1 if layout.name == "official" else 0.0
        expected = dataclasses.replace(architecture, position_offset=offset)
        assert infer(held, layout) == expected


def test_module_prefixes_and_nests_are_taken_off(tmp_path):
    torch = pytest.importorskip("torch")
    state = {f"module.{name}": torch.from_numpy(values) for name, values in STATE.items()}
    path = tmp_path / f"{V1_NAME}.pth"
    torch.save({"model": state, "epoch": 3, "optimizer": {"lr": [0.1]}}, path)
    assert load_weights(path).architecture == TINY


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_checkpoints_of_torch_are_read_without_it(tmp_path, dtype, options):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"{V1_NAME}.pth"
    state = {
        name: torch.from_numpy(values).to(getattr(torch, dtype)) for name, values in STATE.items()
    }
    name = "pretrained.blocks.0.mlp.fc1.weight"
    state[name] = torch.nn.Parameter(state[name].t().contiguous().t())  # column by column
    torch.save(state, path, **options)
    layer = load_weights(path).params["encoder"]["block_00"]["mlp"]["fc1"]
    assert layer["kernel"].dtype == np.float32
    np.testing.assert_array_equal(layer["kernel"], state[name].detach().float().numpy().T)


def test_bfloat16_safetensors_are_read(tmp_path):
    path = tmp_path / f"{V1_NAME}.safetensors"
    save_file({name: values.astype(ml_dtypes.bfloat16) for name, values in STATE.items()}, path)
    bias = load_weights(path).params["encoder"]["norm"]["bias"]
    rounded = STATE["pretrained.norm.bias"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(bias, rounded)


def test_weights_do_not_depend_on_the_file_any_longer(tmp_path):
    path = tmp_path / f"{V1_NAME}.safetensors"
    save_file(STATE, path)
    params = load_weights(path).params
    with open(path, "r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    leaf = params["encoder"]["norm"]["scale"]
    np.testing.assert_array_equal(leaf, STATE["pretrained.norm.weight"])
    assert leaf.flags.writeable and leaf.flags.owndata


def test_dinov2_is_an_encoder_and_no_whole_network(tmp_path):
    for registers, offset, antialias in ((0, 0.1, False), (4, 0.0, True)):
        a = dataclasses.replace(TINY, registers=registers, swiglu=bool(registers))
        state = {
            name.removeprefix("pretrained."): values
            for name, values in random_official_state(a, 0).items()
            if name.startswith("pretrained.")
        }
        path = tmp_path / "dinov2_vits14_pretrain.pth"
        write_torch(path, state, root="archive", record="")
        params, found = load_encoder(path)
        assert (found.registers, found.swiglu) == (registers, a.swiglu)
        assert (found.position_offset, found.position_antialias) == (offset, antialias)
        jax.tree.map(np.testing.assert_array_equal, params, random_weights(a, 0).params["encoder"])
        assert "encoder without depth head" in refused(path)


def test_an_encoder_comes_out_of_a_whole_network_of_any_name(tmp_path):
    weights = random_weights(TINY, 0)
    save_file(STATE, tmp_path / "unknown.safetensors")
    save_transformers(tmp_path / "folder", weights)
    for spec in ("unknown.safetensors", "folder"):
        params, found = load_encoder(tmp_path / spec)
        assert (found.width, found.blocks, found.position_grid) == (64, 6, 3)
        jax.tree.map(np.testing.assert_array_equal, params, weights.params["encoder"])


def test_shards_under_an_index_are_read(tmp_path):
    save_transformers(tmp_path / "whole", random_weights(TINY, 0))
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    parts = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    place = {name: parts[index % 2] for index, name in enumerate(sorted(tensors))}
    for part in parts:
        save_file({k: v for k, v in tensors.items() if place[k] == part}, folder / part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}))
    expected = load_weights(tmp_path / "whole")
    found = load_weights(folder)
    assert found.architecture == expected.architecture
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    (folder / parts[1]).unlink()
    with pytest.raises(DavError, match="there is no .*00002-of-00002"):
        load_weights(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    assert "index.json is damaged" in refused(folder)


CONFIGS = {
    "no config.json": None,
    "no backbone_config": {"backbone_config": None},
    "depth_estimation_type": {"depth_estimation_type": "stereo"},
    "max_depth is None": {"depth_estimation_type": "metric", "max_depth": None},
    "names no four blocks": {"out_indices": [1, 2, 3]},
    "names no four blocks in order ([4, 3, 5, 6])": {"out_indices": [4, 3, 5, 6]},
    "layer_norm_eps is 1e-05 instead of 1e-06": {"layer_norm_eps": 1e-5},
    "num_attention_heads is 2 instead of 1": {"num_attention_heads": 2},
    "model_type is 'dpt'": {"model_type": "dpt"},
    "holds no table of settings": [],
}


@pytest.mark.parametrize("told", CONFIGS)
def test_a_config_that_dav_cannot_follow_is_refused(tmp_path, told):
    folder = tmp_path / "folder"
    save_transformers(folder, random_weights(TINY, 0))
    path, change = folder / "config.json", CONFIGS[told]
    config = json.loads(path.read_text())
    if change is None:
        path.unlink()
    elif change == []:
        path.write_text("[]")
    else:
        inner = {"out_indices", "layer_norm_eps", "num_attention_heads"} & set(change)
        (config["backbone_config"] if inner else config).update(change)
        path.write_text(json.dumps(config))
    assert told in refused(folder)


@pytest.mark.parametrize("spec", ["runs/studnet", "a.pth", "", "empty", "several", "hf:x"])
def test_a_spec_that_names_no_weights_is_wrong_usage(tmp_path, monkeypatch, spec):
    """Unlike weights that are there, but damaged or of another kind."""
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "several"):
        Path(folder).mkdir()
    for name in ("a.pth", "b.pth"):
        Path("several", name).touch()
    for load in (load_weights, load_encoder):
        with pytest.raises(ConfigError):
            load(spec)
        with pytest.raises(DavError) as caught:
            load("several/a.pth")
        assert caught.type is DavError


def test_a_mistyped_spec_is_told_what_specs_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused("runs/studnet")
    assert told == (
        "there is no runs/studnet; weights are named by a work folder of dav, a .safetensors, a "
        ".pth, a folder of transformers, or hf:ORGANISATION/NAME"
    )


def test_stage_names_serve_as_taps(tmp_path):
    folder = tmp_path / "folder"
    save_transformers(folder, random_weights(V2, 0))
    config = json.loads((folder / "config.json").read_text())
    del config["backbone_config"]["out_indices"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_weights(folder).architecture.taps == V2.taps


def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path):
    assert "there is no" in refused(tmp_path / "missing.pth")
    assert "there is no" in refused(tmp_path / ("long" * 100))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")
    assert "of a kind that dav does not read" in refused(tmp_path / "model.onnx")
    (tmp_path / "empty").mkdir()
    assert "holds no weights" in refused(tmp_path / "empty")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    assert "is not a checkpoint of PyTorch" in refused(tmp_path / "page.pth")
    (tmp_path / "several").mkdir()
    for name in ("a.pth", "b.pth"):
        (tmp_path / "several" / name).touch()
    assert "several checkpoints (a.pth, b.pth)" in refused(tmp_path / "several")
    save_file({"conv1.weight": np.zeros((3, 3), np.float32)}, tmp_path / "resnet.safetensors")
    assert "neither a Depth Anything nor a DINOv2" in refused(tmp_path / "resnet.safetensors")
    with zipped(tmp_path / "archive.pth") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one of PyTorch" in refused(tmp_path / "archive.pth")


def zipped(path):
    import zipfile

    return zipfile.ZipFile(path, "w")


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("pretrained.cls_token", (1, 1, 60), "width 60"),
        ("pretrained.cls_token", (64,), "no tensor pretrained.cls_token of 3 dimensions"),
        ("pretrained.pos_embed", (1, 12, 64), "12 positions"),
        ("pretrained.norm.weight", (65,), "pretrained.norm.weight has shape [65] instead of [64]"),
        ("depth_head.projects.1.weight", (1,), "no tensor depth_head.projects.1.weight"),
    ],
)
def test_another_architecture_is_refused(tmp_path, name, shape, told):
    path = tmp_path / f"{V1_NAME}.safetensors"
    save_file(STATE | {name: np.zeros(shape, np.float32)}, path)
    assert told in refused(path)


def save_work_folder(folder, params, ema=()):
    from dav.runtime.checkpoint import Checkpoints

    params, ema = (jax.tree.map(jnp.asarray, tree) for tree in (params, ema))
    step, skipped, in_row = (jnp.int32(n) for n in (3, 0, 0))
    state = TrainState(step, params, {"count": jnp.int32(3)}, ema, skipped, in_row)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, state)


def test_a_work_folder_gives_its_running_average_and_the_version_it_was_trained_as(tmp_path):
    one, average = (random_weights(SIZES["mini"], seed).params for seed in (0, 1))
    save_work_folder(tmp_path, one, average)
    config = {"model": {"size": "mini", "version": 2}, "optimizer": {"ema_decay": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_weights(tmp_path)
    assert found.architecture.taps == V2_TAPS["mini"]
    jax.tree.map(np.testing.assert_array_equal, found.params, average)


def test_a_work_folder_gives_its_newest_checkpoint(tmp_path):
    weights = random_weights(SIZES["mini"], 0)
    (tmp_path / "config.json").write_text(json.dumps({"model": {"size": "mini"}}))
    save_work_folder(tmp_path, weights.params)
    found = load_weights(tmp_path)
    assert found.architecture == SIZES["mini"]
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.params))
    jax.tree.map(np.testing.assert_array_equal, found.params, weights.params)
    encoder, architecture = load_encoder(tmp_path)
    assert architecture == SIZES["mini"]
    jax.tree.map(np.testing.assert_array_equal, encoder, weights.params["encoder"])
    (tmp_path / "config.json").write_text(json.dumps({"model": {"size": "vitx"}}))
    assert "names no size of network" in refused(tmp_path)


def test_a_network_is_asked_at_the_size_of_its_training(tmp_path):
    tiny = dataclasses.replace(random_weights(TINY, 0), source=str(tmp_path / "tiny.pth"))
    assert seen_size_px(tiny) == 14 * TINY.position_grid  # as 14 · 37 = 518 of the releases
    run = dataclasses.replace(tiny, source=str(tmp_path / "run"))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"short_side_px": 168}))
    assert seen_size_px(run) == 168


def test_reading_a_file_imports_no_more_than_it_needs(tmp_path):
    path = tmp_path / f"{V1_NAME}.safetensors"
    save_file(STATE, path)
    program = (
        "import sys; from dav.weights.load import load_weights; load_weights(sys.argv[1]); "
        "print(*sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout.split()
    heavy = {"grain", "huggingface_hub", "orbax", "tensorflow_datasets", "torch", "transformers"}
    assert "safetensors" in out and not heavy & set(out)


@pytest.mark.skipif(
    not RELEASE.is_file(), reason="needs the released weights beside the repository"
)
def test_the_released_small_v2_is_read():
    weights = load_weights(RELEASE)
    assert weights.architecture == dataclasses.replace(SIZES["vits"], taps=V2_TAPS["vits"])
    assert sum(leaf.size for leaf in jax.tree.leaves(weights.params)) == 24_785_089
    image = jax.ShapeDtypeStruct((1, 28, 28, 3), np.float32)
    tree = jax.eval_shape(DepthAnything(weights.architecture).init, jax.random.key(0), image)
    assert jax.tree.map(np.shape, weights.params) == jax.tree.map(np.shape, tree["params"])


@pytest.mark.parametrize("spec", ["", "~nobody-of-that-name/x.pth", "x" * 300, "x" * 300 + ".pth"])
def test_a_spec_that_no_file_can_have_is_one_sentence(spec):
    with pytest.raises(DavError) as caught:
        load_weights(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"backbone_config": {"out_indices": [14, 15, 16, 17]}}, "names no four blocks"),
        ({"max_depth": 20}, "is relative, but max_depth is 20"),
    ],
)
def test_a_config_that_dav_would_compute_differently_is_refused(tmp_path, change, problem):
    save_transformers(tmp_path / "x", random_weights(TINY, 0))
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    config["backbone_config"] |= change.pop("backbone_config", {})
    (tmp_path / "x" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DavError, match=problem):
        load_weights(tmp_path / "x")
