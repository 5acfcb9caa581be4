"""Config → how gradients become parameters: optimiser, rates, groups of parameters."""

import re

import jax
import optax

from dav.step import Update

PARAMETER_GROUPS = {"encoder": r"^encoder/", "decoder": r"^decoder/"}


def make_update(config):
    """The optimiser, the parts a batch is worked in, and the running average."""
    return Update(make_optimizer(config), config.accumulate, config.optimizer.ema_decay)


def make_optimizer(config):
    """AdamW with its own rate for encoder and decoder, both warmed up and decayed linearly."""
    settings = config.optimizer
    groups = {
        group: optax.adamw(schedule(rate, config), weight_decay=settings.weight_decay)
        for group, rate in peak_rates(config).items()
    }
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
    return optax.chain(clip, optax.partition(groups, group_parameters))


def peak_rates(config):
    """Group of parameters → its highest learning rate."""
    return {"encoder": config.optimizer.encoder_lr, "decoder": config.optimizer.decoder_lr}


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
