"""One training step of teacher and student, pure: (state, batch) → (state, metrics).

Shapes: B images, H W crop, h w patch grid, D width. A batch holds `labelled`, and for a student
`unlabelled`, each a dict of image uint8 [B, H, W, 3], disparity float32 and valid bool [B, H, W].
"""

import functools
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dav.models.depth_anything import normalise
from dav.objectives.affine_invariant import affine_invariant
from dav.objectives.cutmix import cutmix_loss, draw_masks, mix
from dav.objectives.feature_alignment import feature_alignment
from dav.objectives.perturb import perturb


@functools.partial(
    jax.tree_util.register_dataclass,
    meta_fields=(),
    data_fields=("step", "params", "opt_state", "skipped", "skipped_in_row"),
)
@dataclass(frozen=True)
class TrainState:
    """All that a checkpoint holds."""

    step: jax.Array  # int32 []
    params: Any
    opt_state: Any
    skipped: jax.Array  # int32 []: updates left out, since something was not finite
    skipped_in_row: jax.Array  # int32 []: of these, the ones just before this step


@dataclass(frozen=True)
class Objective:
    """What a step minimises; the terms with data in the batch are averaged with equal weight."""

    margin: float  # α of the feature alignment
    perturb: bool = True
    align_features: bool = True


def key_for(seed, purpose, step=0):
    """All randomness on the device comes from here: a seed, a word and a step."""
    tag = zlib.crc32(purpose.encode())
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), tag), step)


def init_state(key, *, model, tx, crop_px):
    """Fresh parameters and optimiser state."""
    params = model.init(key, jnp.zeros((1, *crop_px, 3)))["params"]
    step, skipped, skipped_in_row = (jnp.zeros((), jnp.int32) for _ in range(3))
    return TrainState(step, params, tx.init(params), skipped, skipped_in_row)


def train_step(state, frozen, batch, *, model, encoder, tx, seed, objective):
    """One update. `frozen` holds the frozen encoder's parameters; a teacher's step ignores it.

    Returns the new state and float32 metrics: loss, its terms, the gradient's norm.
    """

    def loss_of(params):
        terms, figures = {}, {}
        disparity, _ = model.apply({"params": params}, to_network(batch["labelled"]["image"]))
        labelled = batch["labelled"]
        terms["loss_labelled"] = mean_usable(
            *affine_invariant(disparity, labelled["disparity"], labelled["valid"])
        )
        if "unlabelled" in batch:
            more, figures = _unlabelled_terms(params, frozen, batch["unlabelled"], state.step)
            terms |= more
        loss = sum(terms.values()) / len(terms)
        return loss, {"loss": loss, **terms, **figures}

    def _unlabelled_terms(params, frozen, unlabelled, step):
        images, masks = strong_view(unlabelled["image"], seed, step, apply=objective.perturb)
        image = normalise(images)
        disparity, tokens = model.apply({"params": params}, image)
        terms = {
            "loss_unlabelled": mean_usable(
                *cutmix_loss(disparity, unlabelled["disparity"], unlabelled["valid"], masks)
            )
        }
        if not objective.align_features:
            return terms, {}
        target = encoder.apply({"params": frozen}, image)[-1]
        total, kept = feature_alignment(tokens, target, margin=objective.margin)
        terms["loss_features"] = total / jnp.maximum(kept, 1)
        return terms, {"tokens_kept": kept / (tokens.size // tokens.shape[-1])}

    (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    metrics["grad_norm"] = optax.tree.norm(grads)
    metrics |= {f"grad_norm_{group}": optax.tree.norm(grads[group]) for group in grads}
    return apply_update(state, grads, metrics, tx)


def apply_update(state, grads, metrics, tx):
    """The next state and the whole metrics; parameters and optimiser stay as they are where loss or
    gradient are not finite."""
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, opt_state),
        (state.params, state.opt_state),
    )
    skipped = state.skipped + ~finite
    in_row = jnp.where(finite, 0, state.skipped_in_row + 1)
    metrics = metrics | {"skipped": skipped, "skipped_in_row": in_row}
    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
    return TrainState(state.step + 1, params, opt_state, skipped, in_row), metrics


def strong_view(images, seed, step, *, apply=True):
    """What the student is asked: perturbed and cut-mixed images, and the CutMix masks.

    images uint8 [B, H, W, 3] → float32 in [0, 1] and masks bool [B, H, W].
    """
    images = images.astype(jnp.float32) / 255
    masks = jnp.zeros(images.shape[:3], bool)
    if apply:
        images = perturb(key_for(seed, "perturb", step), images)
        masks = draw_masks(key_for(seed, "cutmix", step), images.shape[:3])
    return mix(images, masks), masks


def predict(params, images, *, model):
    """Images uint8 [B, H, W, 3] → disparity float32 [B, H, W]."""
    return model.apply({"params": params}, to_network(images))[0]


def to_network(images):
    """uint8 → the network's normalised float32."""
    return normalise(images.astype(jnp.float32) / 255)


def mean_usable(loss, usable):
    """Mean of loss [B] over the usable images; 0 when there is none."""
    return jnp.sum(jnp.where(usable, loss, 0.0)) / jnp.maximum(jnp.sum(usable), 1)
