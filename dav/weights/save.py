"""Writes weights in the official layout or as a folder of transformers: whole or not at all."""

import contextlib
import dataclasses
import json
import os
import tempfile
from pathlib import Path

from dav.errors import ConfigError, DavError
from dav.files import write_json
from dav.models.depth_anything import MEAN_RGB, STD_RGB
from dav.models.vit import PATCH_PX
from dav.weights.architecture import BACKBONE_CONSTANTS, HEAD_CONSTANTS
from dav.weights.checkpoint import RECORD
from dav.weights.convert import from_params
from dav.weights.keys import HEAD_CHANNELS, OFFICIAL, TRANSFORMERS, make_table

FOLDER_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
BICUBIC = 3  # in the image processor's numbering


def save_official(path, weights):
    """Writes the official layout, float32, as .safetensors or as .pth, replacing what was there.

    The architecture is noted in it, so that dav reads it back under any name; the authors' code
    ignores the note. Raises ConfigError for another suffix.
    """
    path = Path(path)
    check_official_path(path)
    tensors = from_params(weights.params, make_table(weights.architecture, OFFICIAL))
    record = json.dumps(dataclasses.asdict(weights.architecture))
    with _replacing(path) as temporary:
        if path.suffix == ".pth":
            from dav.weights.torch_write import write_torch

            write_torch(temporary, tensors, root=path.stem, record=record)
        else:
            _write_safetensors(temporary, tensors, {RECORD: record})


def check_official_path(path):
    """Raises ConfigError for a path that the official layout cannot be written to."""
    if path.suffix not in (".safetensors", ".pth") or path.is_dir():
        raise ConfigError(f"{path}: the official layout is a file, .safetensors or .pth")
    if path.suffix == ".pth" and path.stem.encode(errors="ignore").decode() != path.stem:
        raise ConfigError(
            f"{path}: a .pth carries its name inside, which must be UTF-8; choose another"
        )


def save_transformers(folder, weights):
    """Writes a folder that AutoModelForDepthEstimation.from_pretrained loads as it is, float32.

    It replaces a folder of the same files only. transformers resizes positions without the offset
    of the authors' code: off the grid of the position table its maps differ slightly. Raises
    DavError for a network that transformers does not have.
    """
    folder = Path(folder)
    config = transformers_config(weights.architecture)
    if folder.exists() and not (folder.is_dir() and set(os.listdir(folder)) <= FOLDER_FILES):
        raise DavError(f"{folder} holds other files too; choose another folder, or empty it")
    tensors = from_params(weights.params, make_table(weights.architecture, TRANSFORMERS))
    with _replacing(folder) as temporary:
        temporary.mkdir()
        write_json(temporary / "config.json", config)
        write_json(temporary / "preprocessor_config.json", processor_config(weights.architecture))
        # The library asks for this note; one note at most keeps equal files equal bit for bit.
        _write_safetensors(temporary / "model.safetensors", tensors, {"format": "pt"})


def transformers_config(a):
    """The config.json of DepthAnythingForDepthEstimation for an architecture."""
    if a.registers:
        raise DavError(
            "transformers has no Depth Anything on an encoder with registers; write the official "
            "layout instead"
        )
    if a.max_depth_m and a.max_depth_m != int(a.max_depth_m):
        raise DavError(
            f"transformers keeps a metric head's depth in whole metres, not {a.max_depth_m}; write "
            "the official layout instead"
        )
    stages = [tap + 1 for tap in a.taps]
    backbone = {
        **BACKBONE_CONSTANTS,
        "architectures": ["Dinov2Model"],
        "hidden_size": a.width,
        "image_size": PATCH_PX * a.position_grid,
        "model_type": "dinov2",
        "num_attention_heads": a.heads,
        "num_hidden_layers": a.blocks,
        "out_features": [f"stage{stage}" for stage in stages],
        "out_indices": stages,
        "reshape_hidden_states": False,
        "use_swiglu_ffn": a.swiglu,
    }
    return {
        **HEAD_CONSTANTS,
        "architectures": ["DepthAnythingForDepthEstimation"],
        "backbone_config": backbone,
        "depth_estimation_type": "metric" if a.max_depth_m else "relative",
        "fusion_hidden_size": a.features,
        "head_hidden_size": HEAD_CHANNELS,
        "max_depth": int(a.max_depth_m or 1),
        "neck_hidden_sizes": list(a.reassemble),
        "reassemble_hidden_size": a.width,
        "torch_dtype": "float32",
    }


def processor_config(architecture):
    """The preprocessor_config.json: images at the position table's size, as in the releases."""
    side_px = PATCH_PX * architecture.position_grid
    return {
        "do_normalize": True,
        "do_pad": False,
        "do_rescale": True,
        "do_resize": True,
        "ensure_multiple_of": PATCH_PX,
        "image_mean": list(MEAN_RGB),
        "image_processor_type": "DPTImageProcessor",
        "image_std": list(STD_RGB),
        "keep_aspect_ratio": True,
        "resample": BICUBIC,
        "rescale_factor": 1 / 255,
        "size": {"height": side_px, "width": side_px},
        "size_divisor": None,
    }


def _write_safetensors(path, tensors, metadata):
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata=metadata)


def _umask():
    before = os.umask(0)
    os.umask(before)
    return before


@contextlib.contextmanager
def _replacing(target):
    """Yields a path beside `target`; what was written there takes its place if all went well."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            written = Path(folder) / target.name
            yield written
            for path in written.iterdir() if written.is_dir() else [written]:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                path.chmod(0o666 & ~_umask())
            if target.is_dir():  # a folder cannot be replaced in one go
                os.replace(target, Path(folder) / "before")
            os.replace(written, target)
    except OSError as error:
        raise DavError(f"cannot write {target} ({error.strerror}); choose another path") from error
