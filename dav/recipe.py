"""Config → the parts of a run. Only this module, its neighbours recipe_*.py and the jobs read a
config."""

import functools
import math
import operator
from dataclasses import dataclass

import jax

from dav import folders, recipe_data, recipe_network, recipe_update
from dav.errors import ConfigError
from dav.models.depth_anything import SIZES
from dav.models.vit import PATCH_PX
from dav.runtime import checkpoint, parallel, perf
from dav.step import Objective, init_state, key_for, state_of, train_step

SIDES = ("short_side_px", "train_short_side_px", "label_short_side_px")
POSITIVE = (
    "steps",
    "checkpoint_every",
    "log_every",
    "label_batch",
    "label_lease_s",
    "mesh.fsdp",
    "optimizer.decoder_lr",
    "accumulate",
    "stop_after_skipped",
)
NOT_NEGATIVE = (
    "evaluation.max_depth_m",
    "keep_every",
    "label_cost_per_hour",
    "label_wait_s",
    "objective.gradient_weight",
    "optimizer.clip_norm",
    "optimizer.encoder_lr",  # 0: it stays as it is
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "picture_every",
)
# Of these the lower end may be met, the upper one may not.
SHARES = ("objective.trim", "optimizer.ema_decay")


def data_set_names(config):
    """Every data set that the recipe and its teacher read, in order, once."""
    names = [*config.data.labelled, *config.data.get("unlabelled", ()), *config.evaluation.sets]
    if folders.trains_teacher(config):
        names += config.teacher.data.labelled
    return list(dict.fromkeys(names))


def check(config, where="config", *, makes_labels=True):
    """Raises ConfigError for values that no job could use, or that no new label should be made
    with; with makes_labels False the latter pass, so that labels that are there stay usable.
    `where` is what messages call the config."""
    recipe_network.check(config, where)
    sides = config.crop_px
    if not _are_two_whole(sides) or any(n < PATCH_PX or n % PATCH_PX for n in sides):
        raise ConfigError(
            f"{where}.crop_px={sides} must be (height, width), both multiples of {PATCH_PX}"
        )
    _check_numbers(config, where)
    if config.keep_checkpoints < 2:
        raise ConfigError(
            f"{where}.keep_checkpoints={config.keep_checkpoints} must be at least 2: the newest "
            "may be damaged"
        )
    window = tuple(config.profile)
    if window and not (_are_two_whole(window) and 1 <= window[0] < window[1]):
        raise ConfigError(
            f"{where}.profile={window} must be two steps, the first one first and at least 1: the "
            "profile is of those after it, up to the second; or ()"
        )
    for kind, images in config.batch.items():
        if images < 1:
            raise ConfigError(f"{where}.batch.{kind}={images} must be at least 1")
    recipe_data.check(config, where)
    if makes_labels and folders.uses_labels(config):
        _check_label_size(config, where)
    if folders.trains_teacher(config):
        check(config.teacher, f"{where}.teacher")


def _are_two_whole(values):
    return len(values) == 2 and all(isinstance(value, int) for value in values)


def _check_numbers(config, where):
    """Whatever is compared with NaN is false: every test asks for what must be true."""
    for name in SIDES:
        if not _value(config, name, PATCH_PX) >= PATCH_PX:
            raise ConfigError(
                f"{where}.{name}={_value(config, name, 0)} must be at least {PATCH_PX}, a patch"
            )
    for name in POSITIVE:
        if not 0 < _value(config, name, 1) < math.inf:
            raise ConfigError(
                f"{where}.{name}={_value(config, name, 1)} must be above zero, and finite"
            )
    for name in NOT_NEGATIVE:
        if not 0 <= _value(config, name, 0) < math.inf:
            raise ConfigError(
                f"{where}.{name}={_value(config, name, 0)} must be finite, and must not be negative"
            )
    for name in SHARES:
        if not 0 <= _value(config, name, 0) < 1:
            raise ConfigError(f"{where}.{name}={_value(config, name, 0)} must be from 0 to below 1")
    if not -1 <= _value(config, "objective.margin", 0) <= 1:
        raise ConfigError(
            f"{where}.objective.margin={config.objective.margin} must be a cosine, from -1 to 1"
        )


def _check_label_size(config, where):
    side = config.label_short_side_px
    if side % PATCH_PX:
        lower = max(1, side // PATCH_PX) * PATCH_PX
        raise ConfigError(
            f"{where}.label_short_side_px={side} ({where}.short_side_px unless it is set) must be "
            f"a multiple of {PATCH_PX}, such as {lower} or {lower + PATCH_PX}; labels that were "
            "made with it can still be trained on, with --job=train"
        )


def _value(config, name, default):
    try:
        return operator.attrgetter(name)(config)
    except AttributeError:
        return default


def check_trainable(config, where="config", *, devices=None):
    """Raises ConfigError for what all devices, or those given, or dav as it is, cannot train."""
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp, devices=devices)
    for kind, size in config.batch.items():
        if size % (mesh.size * config.accumulate):
            raise ConfigError(
                f"{where}.batch.{kind}={size} does not split over {mesh.size} devices"
                + (f" in {config.accumulate} parts" if config.accumulate > 1 else "")
                + f"; choose a multiple of {mesh.size * config.accumulate}"
            )
    recipe_network.check_starts(config, where)


@dataclass(frozen=True)
class Trainer:
    """A recipe's compiled-on-first-use functions and where their arrays live."""

    mesh: jax.sharding.Mesh
    shapes: object  # TrainState of ShapeDtypeStructs, placed
    init: object  # () → state
    frozen: object  # () → the frozen encoder's parameters, or () if none is asked
    step: object  # (state, frozen, batch) → (state, metrics); the state is donated


def make_trainer(config, *, devices=None):
    """Everything a training loop calls, sharded over a mesh of all devices, or of those given, by
    one rule."""
    check_trainable(config, devices=devices)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp, devices=devices)
    model, update = recipe_network.make_model(config), recipe_update.make_update(config)
    random_init = functools.partial(
        init_state,
        key_for(config.seed, f"init {config.recipe}"),
        model=model,
        update=update,
        crop_px=tuple(config.crop_px),
    )
    shapes = jax.eval_shape(random_init)
    placed = parallel.tree_sharding(shapes, mesh, config.mesh.min_sharded_elements)
    params, encoder = recipe_network.make_starts(
        config, lambda: random_init().params, shapes.params, placed.params
    )
    begin = jax.jit(functools.partial(state_of, update=update), out_shardings=placed)
    uses_frozen = folders.aligns_features(config)
    return Trainer(
        mesh=mesh,
        shapes=checkpoint.abstract_like(shapes, placed),
        init=lambda: begin(params()),
        frozen=encoder if uses_frozen else tuple,
        step=jax.jit(
            make_step(config, model, update),
            in_shardings=(
                placed,
                placed.params["encoder"] if uses_frozen else (),
                parallel.batch_sharding(mesh),
            ),
            out_shardings=(placed, parallel.replicated(mesh)),
            donate_argnums=0,
        ),
    )


def make_step(config, model, update):
    """(state, frozen, batch) → (state, metrics), not compiled."""
    return functools.partial(
        train_step,
        model=model,
        encoder=recipe_network.make_frozen_encoder(config),
        update=update,
        seed=config.seed,
        objective=make_objective(config),
    )


def make_objective(config):
    """What a step minimises. A recipe without unlabelled images names fewer settings."""
    return Objective(**config.objective.to_dict())


def step_flops(config):
    """Floating-point operations of one training step, the frozen encoder's included."""
    return perf.training_flops(
        SIZES[config.model.size],
        recipe_network.crop_grid(config),
        sum(config.batch.values()),
        frozen_images=config.batch.unlabelled if folders.aligns_features(config) else 0,
    )
