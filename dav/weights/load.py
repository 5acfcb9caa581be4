"""Weights of any origin by one spec: a work folder of dav, a file, a folder, or the hub.

WORKDIR | FILE.safetensors | FILE.pth | TRANSFORMERS_FOLDER | hf:ORGANISATION/NAME[@REVISION]
"""

import dataclasses
import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dav.errors import ConfigError, DavError
from dav.models.depth_anything import SIZES, Architecture, architecture_of
from dav.models.vit import PATCH_PX
from dav.runtime import workdir
from dav.weights import hub
from dav.weights.architecture import check_backbone, find_layout, infer, infer_encoder
from dav.weights.checkpoint import choose_weights, open_checkpoint, read_config
from dav.weights.convert import nest, to_params
from dav.weights.keys import OFFICIAL, make_table


@dataclass(frozen=True)
class Weights:
    """The parameters of a network and what makes the network.

    params is a nested dict of float32 NumPy arrays, the tree of DepthAnything(architecture).init;
    source is the spec they came from.
    """

    params: dict
    architecture: Architecture
    source: str


def load_weights(spec):
    """Weights of a whole network. Raises DavError, naming the spec, if they cannot be used;
    ConfigError if it names none."""
    spec = str(spec)
    if _is_workdir(spec):
        return _load_workdir(spec)
    checkpoint = _open(spec)
    layout = find_layout(checkpoint)
    if layout.decoder is None:
        raise DavError(
            f"{spec} is an encoder without depth head; training can start from it, but this needs "
            "the weights of a whole Depth Anything"
        )
    architecture = infer(checkpoint, layout)
    params = to_params(checkpoint.tensors, make_table(architecture, layout), spec)
    return Weights(params, architecture, spec)


def seen_size_px(weights):
    """The short side, in pixels, at which a network was trained: that of its work folder's recipe,
    else that of its position table, as the releases have it (518)."""
    side = None
    if _is_workdir(weights.source):
        side = read_config(Path(os.path.expanduser(weights.source))).get("short_side_px")
    return side if type(side) is int else PATCH_PX * weights.architecture.position_grid


@functools.cache
def digest(spec):
    """sha256 of a network's parameters and architecture: the same for the same network, in
    whatever file; read once in a process."""
    return digest_of(load_weights(spec))


def digest_of(weights):
    """The same of Weights."""
    found = hashlib.sha256(repr(weights.architecture).encode())
    for path, leaf in sorted(workdir.flatten(weights.params).items()):
        found.update(f"{path} {leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()


def load_encoder(spec):
    """(parameters, architecture) of an encoder, DINOv2's or that of a whole network.

    The parameters are those under `encoder` in a whole network's. Of the architecture only the
    encoder's part is the file's; its decoder is a new one that goes with it. Raises DavError as
    load_weights.
    """
    spec = str(spec)
    if _is_workdir(spec):
        whole = _load_workdir(spec)
        return whole.params["encoder"], whole.architecture
    checkpoint = _open(spec)
    layout = find_layout(checkpoint)
    architecture = infer_encoder(checkpoint, layout)
    if layout.name == "transformers":
        config = read_config(checkpoint.folder)
        backbone = config.get("backbone_config")
        check_backbone(backbone if isinstance(backbone, dict) else config, architecture, spec)
    tensors = {
        name: value
        for name, value in checkpoint.tensors.items()
        if layout.decoder is None or name.startswith(layout.encoder)
    }
    table = make_table(architecture, dataclasses.replace(layout, decoder=None))
    return to_params(tensors, table, spec)["encoder"], architecture


def _open(spec):
    """The checkpoint that a spec names, unless it is a work folder."""
    if not spec:
        raise ConfigError("the weights spec is empty; name a file, a folder, or hf:org/name")
    if spec.startswith(hub.PREFIX):
        path, repository = hub.fetch(spec)
        return open_checkpoint(path, spec, names=(repository.split("/")[1],))
    path = Path(os.path.expanduser(spec))
    if not os.path.exists(path):
        raise ConfigError(
            f"there is no {spec}; weights are named by a work folder of dav, a .safetensors, a "
            ".pth, a folder of transformers, or hf:ORGANISATION/NAME"
        )
    if os.path.isdir(path):  # unlike Path.is_dir, False for names that no system takes
        path /= choose_weights([entry.name for entry in path.iterdir()], spec)
    return open_checkpoint(path, spec)


def _is_workdir(spec):
    return bool(spec) and os.path.isdir(Path(os.path.expanduser(spec)) / "checkpoints")


def _load_workdir(spec):
    """The newest checkpoint of a work folder, on the host."""
    import jax

    from dav.runtime.checkpoint import restore_params

    folder = Path(os.path.expanduser(spec))
    model = read_config(folder).get("model")
    size = model.get("size") if isinstance(model, dict) else None
    if not isinstance(size, str) or size not in SIZES:
        raise DavError(
            f"{spec} looks like a work folder, but its config.json names no size of network "
            f"({', '.join(SIZES)}); restore it, or name the folder of another run"
        )
    optimizer = read_config(folder).get("optimizer") or {}
    architecture = architecture_of(size, model.get("version", 1))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = {
        row.leaf: jax.ShapeDtypeStruct(
            tuple(row.shape[axis] for axis in row.axes), np.float32, sharding=place
        )
        for row in make_table(architecture, OFFICIAL)
    }
    params = restore_params(
        folder / "checkpoints", nest(shapes), average=bool(optimizer.get("ema_decay"))
    )
    return Weights(jax.tree.map(np.asarray, params), architecture, spec)
