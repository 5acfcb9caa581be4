"""Config → the network: its architecture, what it starts from, and asking a finished one."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dav.errors import ConfigError
from dav.models.depth_anything import SIZES, DepthAnything, architecture_of, make_encoder
from dav.models.vit import PATCH_PX
from dav.runtime import checkpoint, parallel
from dav.step import predict
from dav.weights import load

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check(config):
    """Raises ConfigError for a network that there is not."""
    model = config.model
    for name, known in (("size", SIZES), ("version", (1, 2)), ("dtype", DTYPES)):
        if model[name] not in known:
            raise ConfigError(
                f"config.model.{name}={model[name]!r} is not known; known: "
                f"{', '.join(map(str, known))}"
            )


def check_starts(config):
    """Raises ConfigError for weights to start from that are not there."""
    model = config.model
    if config.recipe == "finetune" and not model.weights:
        raise ConfigError("config.model.weights is empty; name the weights to fine-tune")
    for name, spec in (("encoder_init", model.encoder_init), ("weights", model.weights)):
        if spec in ("", "random") or spec.startswith("hf:") or Path(spec).expanduser().exists():
            continue
        raise ConfigError(
            f"config.model.{name}={spec!r}: no such file; it is "
            + ("random, or the weights of an encoder, " if name == "encoder_init" else "weights, ")
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


def make_predictor(config, folder):
    """(images uint8 [B, H, W, 3]) → disparity float32 on the host, with the newest checkpoint of
    `folder`, its running average if it keeps one; B must be a multiple of the number of devices."""
    model = make_model(config)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp)
    image = jax.ShapeDtypeStruct((1, *config.crop_px, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    placed = parallel.tree_sharding(shapes, mesh, config.mesh.min_sharded_elements)
    params = checkpoint.restore_params(
        folder,
        checkpoint.abstract_like(shapes, placed),
        average=config.optimizer.ema_decay > 0,
    )
    return _asking(model, params, placed, mesh)


def make_foreign_predictor(config, spec):
    """As make_predictor, with weights of any origin. Raises ConfigError for metric depth."""
    found = load.load_weights(spec)
    if found.architecture.max_depth_m is not None:
        raise ConfigError(f"{spec} gives depth in metres; labels are made of disparity")
    model = DepthAnything(found.architecture, dtype=DTYPES[config.model.dtype])
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp)
    placed = parallel.tree_sharding(found.params, mesh, config.mesh.min_sharded_elements)
    return _asking(model, _place(found.params, placed), placed, mesh)


def _asking(model, params, placed, mesh):
    run = jax.jit(
        functools.partial(predict, model=model),
        in_shardings=(placed, parallel.batch_sharding(mesh)),
        out_shardings=parallel.replicated(mesh),
    )
    return lambda images: np.asarray(run(params, images))


def whole_batch(images):
    """The smallest batch of at least so many images that splits evenly over the devices."""
    devices = jax.device_count()
    return -(-images // devices) * devices
