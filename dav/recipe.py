"""Config → the parts of a run. The only place, beside the jobs, that reads a config."""

import dataclasses
import functools
import operator
import re
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax

from dav import recipe_data
from dav.errors import ConfigError
from dav.models.depth_anything import SIZES, DepthAnything, make_encoder
from dav.models.vit import PATCH_PX
from dav.runtime import checkpoint, parallel
from dav.step import Objective, init_state, key_for, predict, train_step
from dav.weights import load

POSITIVE = (
    "steps",
    "checkpoint_every",
    "log_every",
    "label_batch",
    "mesh.fsdp",
    "short_side_px",
    "train_short_side_px",
    "evaluation.max_depth_m",
)
PARAMETER_GROUPS = {"encoder": r"^encoder/", "decoder": r"^decoder/"}


def data_set_names(config):
    """Every data set that the recipe and its teacher read, in order, once."""
    names = [*config.data.labelled, *config.data.get("unlabelled", ()), *config.evaluation.sets]
    if "teacher" in config:
        names += config.teacher.data.labelled
    return list(dict.fromkeys(names))


def check(config):
    """Raises ConfigError for values that no job could use."""
    if config.model.size not in SIZES:
        raise ConfigError(f"unknown model size {config.model.size!r}; known: {', '.join(SIZES)}")
    if len(config.crop_px) != 2 or any(n < PATCH_PX or n % PATCH_PX for n in config.crop_px):
        raise ConfigError(
            f"config.crop_px={config.crop_px} must be (height, width), both multiples of {PATCH_PX}"
        )
    for name in POSITIVE:
        value = operator.attrgetter(name)(config) if name.split(".")[0] in config else 1
        if value <= 0:
            raise ConfigError(f"config.{name}={value} must be above zero")
    for kind, images in config.batch.items():
        if images < 1:
            raise ConfigError(f"config.batch.{kind}={images} must be at least 1")
    recipe_data.check(config)
    if "teacher" in config:
        check(config.teacher)


def check_trainable(config):
    """Raises ConfigError for what this machine, or dav as it is, cannot train."""
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp)
    for kind, size in config.batch.items():
        if size % mesh.size:
            raise ConfigError(
                f"config.batch.{kind}={size} does not split over {mesh.size} devices; choose a "
                f"multiple of {mesh.size}"
            )
    spec = config.model.encoder_init
    if spec != "random" and not spec.startswith("hf:") and not Path(spec).exists():
        raise ConfigError(
            f"config.model.encoder_init={spec!r}: no such file; it is random, or the weights of an "
            "encoder, as a .pth, .safetensors, folder, or hf:org/name"
        )


def make_model(config):
    """The network of a recipe."""
    return DepthAnything(SIZES[config.model.size])


def crop_grid(config):
    """The patch grid (rows, columns) of one training crop."""
    return tuple(side // PATCH_PX for side in config.crop_px)


def make_optimizer(config):
    """AdamW with its own rate for encoder and decoder, both warmed up and decayed linearly."""
    settings = config.optimizer
    rates = {"encoder": settings.encoder_lr, "decoder": settings.decoder_lr}
    groups = {
        group: optax.adamw(schedule(rate, config), weight_decay=settings.weight_decay)
        for group, rate in rates.items()
    }
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.partition(groups, group_parameters),
    )


def schedule(peak, config):
    """Learning rate by step: up to peak over the warm-up, then linearly towards 0 at the end."""
    warmup = min(config.optimizer.warmup_steps, config.steps // 2)
    return optax.schedules.join_schedules(
        [
            optax.schedules.linear_schedule(peak / (warmup + 1), peak, warmup),
            optax.schedules.linear_schedule(peak, 0.0, config.steps - warmup),
        ],
        [warmup],
    )


def group_parameters(params):
    """The group of every leaf; one that is in none, or in two, is an error."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _group_of(path), params)


def _group_of(path):
    name = "/".join(part.key for part in path)
    hits = [group for group, pattern in PARAMETER_GROUPS.items() if re.match(pattern, name)]
    if len(hits) != 1:
        raise ValueError(f"parameter {name!r} is in {hits or 'no group'}; it needs exactly one")
    return hits[0]


@dataclass(frozen=True)
class Trainer:
    """A recipe's compiled-on-first-use functions and where their arrays live."""

    mesh: jax.sharding.Mesh
    shapes: object  # TrainState of ShapeDtypeStructs, placed
    init: object  # () → state
    frozen: object  # () → the frozen encoder's parameters, or () for a teacher
    step: object  # (state, frozen, batch) → (state, metrics); the state is donated


def make_trainer(config):
    """Everything a training loop calls, sharded over the mesh by one rule."""
    check_trainable(config)
    model, tx = make_model(config), make_optimizer(config)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp)
    place = functools.partial(
        parallel.tree_sharding, mesh=mesh, min_elements=config.mesh.min_sharded_elements
    )
    key = key_for(config.seed, f"init {config.recipe}")
    random_init = functools.partial(
        init_state, key, model=model, tx=tx, crop_px=tuple(config.crop_px)
    )
    shapes = jax.eval_shape(random_init)
    placed = place(shapes)
    init, encoder = make_starts(config, random_init, shapes, placed)
    batch = parallel.batch_sharding(mesh)
    step = functools.partial(
        train_step,
        model=model,
        encoder=make_encoder(SIZES[config.model.size]),
        tx=tx,
        seed=config.seed,
        objective=make_objective(config),
    )
    uses_frozen = config.recipe == "student" and config.objective.align_features
    frozen_placed = placed.params["encoder"] if uses_frozen else ()
    return Trainer(
        mesh=mesh,
        shapes=checkpoint.abstract_like(shapes, placed),
        init=init,
        frozen=encoder if uses_frozen else tuple,
        step=jax.jit(
            step,
            in_shardings=(placed, frozen_placed, batch),
            out_shardings=(placed, parallel.replicated(mesh)),
            donate_argnums=0,
        ),
    )


def make_starts(config, random_init, shapes, placed):
    """Two functions: () → the state that training starts from; () → its encoder's parameters, in
    arrays of their own, since steps give theirs away."""
    whole = jax.jit(random_init, out_shardings=placed)
    if config.model.encoder_init == "random":
        encoder = placed.params["encoder"]
        return whole, jax.jit(lambda: random_init().params["encoder"], out_shardings=encoder)

    def encoder():
        return load_encoder(config, shapes.params["encoder"], placed.params["encoder"])

    def init():
        state = whole()
        return dataclasses.replace(state, params=state.params | {"encoder": encoder()})

    return init, encoder


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
    return jax.tree.map(
        lambda leaf, sharding: jax.make_array_from_callback(
            leaf.shape, sharding, lambda index: leaf[index]
        ),
        params,
        placed,
    )


def make_objective(config):
    """A teacher has the labelled term only; a student's is in its config."""
    if config.recipe == "teacher":
        return Objective(margin=1.0)
    return Objective(**config.objective.to_dict())


def make_predictor(config, folder):
    """(images uint8 [B, H, W, 3]) → disparity float32 on the host, with the newest checkpoint of
    `folder`; B must be a multiple of the number of devices."""
    model = make_model(config)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp)
    image = jax.ShapeDtypeStruct((1, *config.crop_px, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    placed = parallel.tree_sharding(shapes, mesh, config.mesh.min_sharded_elements)
    params = checkpoint.restore_params(folder, checkpoint.abstract_like(shapes, placed))
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
