"""One opened checkpoint, whatever its format: its tensors, and all that may tell what it is.

A checkpoint is a file, or shards under an index, alone or in a folder beside a config.json: as
transformers writes it, and as a repository of the hub holds it.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dav.errors import ConfigError, DavError
from dav.files import read_json
from dav.weights.torch_file import map_file, read_torch

TORCH_SUFFIXES = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
INDEX_SUFFIX = ".index.json"
# What a folder holds its weights in, the first of these that is there.
PREFERRED = tuple(
    name + suffix
    for name in ("model.safetensors", "pytorch_model.bin")
    for suffix in ("", INDEX_SUFFIX)
)
RECORD = "dav.architecture"  # dav's own note in the metadata of a .safetensors
SAFETENSORS_TYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint and what else stands with them."""

    source: str  # as the user named it
    tensors: dict  # foreign name → array, mostly a view of the file
    names: tuple[str, ...]  # of the file, its archive, its repository: releases have known ones
    folder: Path  # where it stands
    record: str  # the architecture as dav noted it, JSON, or ""


def open_checkpoint(path, source, names=()):
    """Opens a weights file or an index of shards; `names` are further ones it is known by.

    Raises DavError if it is not there, of an unknown kind, damaged, or holds more than tensors.
    """
    path = Path(path)
    tensors, inside, record = {}, "", ""
    for part in shard_paths(path, source) if path.name.endswith(INDEX_SUFFIX) else [path]:
        held, inside, record = _read(part, source)
        tensors |= held
    names = tuple(name for name in (path.name, *names, inside) if name)
    return Checkpoint(source, tensors, names, path.parent, record)


def read_config(folder):
    """The settings in a folder's config.json, {} if it has none."""
    path = Path(folder) / "config.json"
    return read_table(path) if path.is_file() else {}


def choose_weights(names, source):
    """The one of a folder's file names that holds its weights, or the index of their shards.

    Raises ConfigError if none does, or several do.
    """
    for name in PREFERRED:
        if name in names:
            return name
    candidates = sorted(name for name in names if Path(name).suffix in SUFFIXES)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ConfigError(
            f"{source} holds several checkpoints ({', '.join(candidates)}); name one of them"
        )
    raise ConfigError(
        f"{source} holds no weights that dav reads (a .safetensors, .pth, .pt or .bin file, or "
        "the config.json and checkpoints of a work folder)"
    )


def shard_paths(index, source):
    """The files that an index names, all beside it."""
    shards = read_table(index).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else ()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DavError(f"{source}: {index.name} is damaged; download it again")
    return [index.with_name(name) for name in sorted(names)]


def _read(path, source):
    """(tensors, name inside the file, dav's record) of one file."""
    if not os.path.isfile(path):
        raise DavError(f"there is no {path}; check the name, or download it again")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path, source)
        if path.suffix in TORCH_SUFFIXES:
            return read_torch(path, source)
    except OSError as error:
        raise DavError(f"cannot read {path} ({error.strerror})") from None
    raise DavError(
        f"{source} is of a kind that dav does not read; it reads {', '.join(SUFFIXES)}, folders "
        "of transformers, work folders of dav, and hf:ORGANISATION/NAME"
    )


def _read_safetensors(path, source):
    from safetensors import safe_open

    with open(path, "rb") as file:
        content = map_file(file, source)
    try:
        with safe_open(path, "np") as file:  # checks the header; the views below copy nothing
            metadata = file.metadata() or {}
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        tensors = {name: _view(content, start, entry) for name, entry in header.items()}
    except Exception as error:  # the library's own kinds among them
        raise DavError(
            f"{source} is damaged or not a .safetensors file ({str(error)[:80]}); download it again"
        ) from None
    return tensors, "", metadata.get(RECORD, "")


def _view(content, start, entry):
    dtype, shape = np.dtype(SAFETENSORS_TYPES[entry["dtype"]]), entry["shape"]
    offset = start + entry["data_offsets"][0]
    return np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape)


def read_table(path):
    """A JSON file that holds a table of names and values. Raises DavError for any other."""
    try:
        table = read_json(path)
    except RecursionError:
        table = None
    if not isinstance(table, dict):
        raise DavError(f"{path} is damaged: it holds no table of settings; restore it")
    return table
