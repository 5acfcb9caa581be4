"""Config → the network: its architecture, what it starts from, and asking a finished one."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from dav.errors import ConfigError
from dav.models.depth_anything import DTYPES, SIZES, DepthAnything, architecture_of, make_encoder
from dav.models.remat import POLICIES
from dav.models.vit import PATCH_PX
from dav.weights import load


def check(config, where="config"):
    """Raises ConfigError for a network that there is not."""
    model = config.model
    choices = {"size": SIZES, "version": (1, 2), "dtype": DTYPES, "remat": POLICIES}
    for name, known in choices.items():
        if model[name] not in known:
            raise ConfigError(
                f"{where}.model.{name}={model[name]!r} is not known; known: "
                f"{', '.join(map(str, known))}"
            )


def check_starts(config, where="config"):
    """Raises ConfigError for weights to start from that are not there."""
    model = config.model
    if config.recipe == "finetune" and not model.weights:
        raise ConfigError(f"{where}.model.weights is empty; name the weights to fine-tune")
    specs = {"model.encoder_init": model.encoder_init, "model.weights": model.weights}
    specs |= {"teacher_weights": config.get("teacher_weights", "")}
    for name, spec in specs.items():
        of_encoder = name == "model.encoder_init"
        if not spec or spec.startswith("hf:") or Path(spec).expanduser().exists():
            continue
        if spec == "random" and of_encoder:
            continue
        raise ConfigError(
            f"{where}.{name}={spec!r}: no such file; it is "
            + ("random, or the weights of an encoder, " if of_encoder else "weights, ")
            + "as a .pth, .safetensors, folder, or hf:org/name"
        )


def architecture(config):
    """What the config says of the network."""
    return architecture_of(config.model.size, config.model.version)


def make_model(config):
    """The network that is trained."""
    return DepthAnything(
        architecture(config), dtype=DTYPES[config.model.dtype], remat=config.model.remat
    )


def make_frozen_encoder(config):
    """The encoder that features are aligned with."""
    return make_encoder(architecture(config), dtype=DTYPES[config.model.dtype])


def crop_grid(config):
    """The patch grid (rows, columns) of one training crop."""
    return tuple(side // PATCH_PX for side in config.crop_px)


def make_starts(config, random_params, shapes, placed):
    """Two functions: () → the parameters that training starts from; () → the frozen encoder's, in
    arrays of their own, since steps give theirs away.

    random_params: () → parameters by seed; shapes and placed: theirs, and where they live.
    """
    whole = jax.jit(random_params, out_shardings=placed)
    if config.model.weights:
        return (
            lambda: load_whole(config, shapes, placed),
            lambda: load_whole(config, shapes, placed)["encoder"],
        )
    if config.model.encoder_init == "random":
        encoder = jax.jit(lambda: random_params()["encoder"], out_shardings=placed["encoder"])
        return whole, encoder

    def encoder():
        return load_encoder(config, shapes["encoder"], placed["encoder"])

    return (lambda: whole() | {"encoder": encoder()}), encoder


def load_whole(config, shapes, placed):
    """The network that config.model.weights names, placed on the mesh.

    Raises ConfigError if it is of another architecture than the config's.
    """
    found = load.load_weights(config.model.weights)
    # How positions are resized is no matter of the weights; which blocks the head reads is.
    wanted = architecture(config)
    fitted = dataclasses.replace(
        found.architecture,
        position_offset=wanted.position_offset,
        position_antialias=wanted.position_antialias,
    )
    if fitted != wanted:
        differing = ", ".join(
            f"{field.name} {getattr(fitted, field.name)}, not {getattr(wanted, field.name)}"
            for field in dataclasses.fields(wanted)
            if getattr(fitted, field.name) != getattr(wanted, field.name)
        )
        raise ConfigError(
            f"config.model.weights={config.model.weights} is not of size {config.model.size}, "
            f"version {config.model.version} ({differing}); name others, or set "
            "config.model.size and config.model.version to theirs"
        )
    return _place(found.params, placed)


def load_encoder(config, shapes, placed):
    """The encoder that config.model.encoder_init names, placed on the mesh.

    Raises ConfigError if it is of another architecture than the config's.
    """
    spec = config.model.encoder_init
    params, _ = load.load_encoder(spec)
    if jax.tree.map(np.shape, params) != jax.tree.map(lambda leaf: leaf.shape, shapes):
        raise ConfigError(
            f"config.model.encoder_init={spec} is not an encoder of size {config.model.size}; "
            "name one, or another --config.model.size"
        )
    return _place(params, placed)


def _place(params, placed):
    return jax.tree.map(
        lambda leaf, sharding: jax.make_array_from_callback(
            leaf.shape, sharding, lambda index: leaf[index]
        ),
        params,
        placed,
    )
