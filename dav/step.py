"""One training step of every recipe, pure: (state, batch) → (state, metrics).

Shapes: B images, H W crop, h w patch grid, D width. A batch holds `labelled`, `unlabelled` or
both, each a dict of image uint8 [B, H, W, 3], disparity float32 and valid bool [B, H, W].
"""

import functools
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dav.models.depth_anything import normalise
from dav.models.placement import join_batches, part_batches
from dav.models.vit import PATCH_PX
from dav.objectives.affine_invariant import affine_invariant
from dav.objectives.cutmix import cutmix_loss, draw_masks, mix, neighbour
from dav.objectives.feature_alignment import feature_alignment
from dav.objectives.gradient_matching import gradient_matching
from dav.objectives.perturb import perturb


@functools.partial(
    jax.tree_util.register_dataclass,
    meta_fields=(),
    data_fields=("step", "params", "opt_state", "ema", "skipped", "skipped_in_row"),
)
@dataclass(frozen=True)
class TrainState:
    """All that a checkpoint holds."""

    step: jax.Array  # int32 [], updates that were left out included
    params: Any
    opt_state: Any
    ema: Any  # running average of params, or () if none is kept
    skipped: jax.Array  # int32 []: updates left out, since something was not finite
    skipped_in_row: jax.Array  # int32 []: of these, the ones just before this step


@dataclass(frozen=True)
class Objective:
    """What a step minimises: the plain mean of its terms, as the paper's average of three.

    The terms are the labelled images' loss, the unlabelled images' and the feature alignment, as
    far as there is data for them.
    """

    perturb: bool = True  # colour, blur and CutMix on the unlabelled images
    align_features: bool = True
    margin: float = 0.85  # α of the feature alignment
    gradient_weight: float = 0.0  # of gradient matching, beside 1 for the labelled loss; V2: 2
    trim: float = 0.0  # share of a pseudo-label's pixels, those of largest loss; V2: 0.1


@dataclass(frozen=True)
class Update:
    """How gradients become parameters."""

    tx: optax.GradientTransformation
    accumulate: int = 1  # parts that a batch is worked in, one after the other
    ema_decay: float = 0.0  # 0: no average is kept


def key_for(seed, purpose, step=0):
    """All randomness on the device comes from here: a seed, a word and a step."""
    tag = zlib.crc32(purpose.encode())
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), tag), step)


def init_state(key, *, model, update, crop_px):
    """Fresh parameters and optimiser state."""
    params = model.init(key, jnp.zeros((1, *crop_px, 3)))["params"]
    return state_of(params, update)


def state_of(params, update):
    """The state in which training from `params` begins."""
    # No two leaves may be one array: a step gives its state's memory away.
    ema = jax.tree.map(jnp.copy, params) if update.ema_decay else ()
    zeros = (jnp.zeros((), jnp.int32) for _ in range(3))
    step, skipped, skipped_in_row = zeros
    return TrainState(step, params, update.tx.init(params), ema, skipped, skipped_in_row)


def train_step(state, frozen, batch, *, model, encoder, update, seed, objective):
    """One update. `frozen` holds the frozen encoder's parameters, () where none is asked.

    Returns the new state and float32 metrics: loss, its terms (loss_labelled, loss_gradients,
    loss_unlabelled, loss_features), the share of images and tokens that had a loss, gradient norms
    of the whole and by group, and how many updates were left out. An update is left out, and the
    step counted, where loss or gradient are not finite.
    """

    def terms(params, asked):
        return measure_terms(answer(params, asked, model=model), asked, objective=objective)

    parts = split(ask(batch, seed, state.step, objective), update.accumulate)
    if "unlabelled" in batch and objective.align_features:
        look = functools.partial(encoder.apply, {"params": frozen})
        parts["unlabelled"]["frozen"] = one_by_one(
            lambda image: look(image)[-1], parts["unlabelled"]["image"]
        )
    sums, counts, grads = differentiate(terms, state.params, parts, objective)
    metrics = summarise(sums, counts, batch, grads, objective)
    return apply_update(state, grads, metrics, update)


def ask(batch, seed, step, objective):
    """What the network is shown and told, for the whole batch: each kind's normalised image, its
    target, and for unlabelled images the perturbed view, CutMix masks and neighbours' targets."""
    asked = {}
    if "labelled" in batch:
        part = batch["labelled"]
        asked["labelled"] = part | {"image": to_network(part["image"])}
    if "unlabelled" in batch:
        part = batch["unlabelled"]
        images, masks = strong_view(part["image"], seed, step, apply=objective.perturb)
        asked["unlabelled"] = part | {
            "image": normalise(images),
            "masks": masks,
            "other_disparity": neighbour(part["disparity"]),
            "other_valid": neighbour(part["valid"]),
        }
    return asked


def split(tree, parts):
    """Leaves [B, …] → [parts, B / parts, …]: every parts-th image, so that each part is as evenly
    spread over the devices as the whole."""

    def cut(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)


def one_by_one(function, parts):
    """function(part) of every part, stacked; a single part needs no loop."""
    if parts.shape[0] == 1:
        return function(parts[0])[None]
    return jax.lax.map(function, parts)


def answer(params, asked, *, model):
    """{kind: (disparity, tokens)}: what the network says to what it is asked.

    Labelled and unlabelled images pass through it together, so that each weight has one gradient:
    one product, and on a mesh one sum over all devices.
    """
    images = [part["image"] for part in asked.values()]
    sizes = [x.shape[0] for x in images]
    whole = model.apply({"params": params}, join_batches(images))
    return dict(zip(asked, zip(*(part_batches(x, sizes) for x in whole), strict=True), strict=True))


def measure_terms(answers, asked, *, objective):
    """Sums and counts of every term over one part of a batch: two dicts of float32 []."""
    found = {}
    if "labelled" in asked:
        part = asked["labelled"]
        maps = (answers["labelled"][0], part["disparity"], part["valid"])
        found["labelled"] = affine_invariant(*maps)
        if objective.gradient_weight:
            found["gradients"] = gradient_matching(*maps)
    if "unlabelled" in asked:
        part = asked["unlabelled"]
        disparity, tokens = answers["unlabelled"]
        names = ("disparity", "valid", "other_disparity", "other_valid", "masks")
        targets = (part[name] for name in names)
        found["unlabelled"] = cutmix_loss(disparity, *targets, trim=objective.trim)
        if objective.align_features:
            found["features"] = feature_alignment(tokens, part["frozen"], margin=objective.margin)
    sums, counts = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    return sums, counts


def differentiate(terms, params, parts, objective):
    """Sums, counts and the loss's gradient over all parts of a batch.

    One part is differentiated as it is. Of several, all counts are taken first, in passes without
    gradients, so that the parts' gradients add up to the whole batch's exactly.
    """

    def loss_of(params, part, totals):
        sums, counts = terms(params, part)
        totals = counts if totals is None else totals
        return total_loss(sums, jax.lax.stop_gradient(totals), objective), (sums, counts)

    number = jax.tree.leaves(parts)[0].shape[0]
    if number == 1:
        whole = jax.tree.map(lambda x: x[0], parts)
        grads, (sums, counts) = jax.grad(loss_of, has_aux=True)(params, whole, None)
        return sums, counts, grads
    counts = jax.lax.map(lambda part: terms(params, part)[1], parts)
    totals = jax.tree.map(lambda x: jnp.sum(x, axis=0), counts)

    def add(carry, part):
        grads, (sums, _) = jax.grad(loss_of, has_aux=True)(params, part, totals)
        return jax.tree.map(jnp.add, carry, (grads, sums)), None

    nothing = (jax.tree.map(jnp.zeros_like, params), {name: jnp.zeros(()) for name in totals})
    (grads, sums), _ = jax.lax.scan(add, nothing, parts)
    return sums, totals, grads


def total_loss(sums, counts, objective):
    """The mean of the terms; gradient matching is a part of the labelled one."""
    means = {name: sums[name] / jnp.maximum(counts[name], 1) for name in sums}
    gradients = objective.gradient_weight * means.pop("gradients", 0.0)
    return (sum(means.values()) + gradients) / len(means)


def summarise(sums, counts, batch, grads, objective):
    """The metrics of a step, before its update."""
    metrics = {"loss": total_loss(sums, counts, objective)}
    for name in sums:
        metrics[f"loss_{name}"] = sums[name] / jnp.maximum(counts[name], 1)
    for kind, part in batch.items():
        metrics[f"usable_{kind}"] = counts[kind] / part["image"].shape[0]
    if "features" in counts:
        images, height, width = batch["unlabelled"]["disparity"].shape
        metrics["tokens_kept"] = counts["features"] / (images * height * width // PATCH_PX**2)
    norms = {f"grad_norm_{group}": optax.tree.norm(grads[group]) for group in grads}
    whole = jnp.sqrt(sum(norm**2 for norm in norms.values()))
    return metrics | {"grad_norm": whole} | norms


def apply_update(state, grads, metrics, update):
    """The next state and the whole metrics; parameters, optimiser and average stay as they are
    where loss or gradient are not finite."""
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    updates, opt_state = update.tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = average(state.ema, params, state.step, update.ema_decay) if update.ema_decay else ()
    params, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, opt_state, ema),
        (state.params, state.opt_state, state.ema),
    )
    skipped = state.skipped + ~finite
    in_row = jnp.where(finite, 0, state.skipped_in_row + 1)
    metrics = {"skipped": skipped, "skipped_in_row": in_row} | metrics
    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
    return TrainState(state.step + 1, params, opt_state, ema, skipped, in_row), metrics


def average(ema, params, step, decay):
    """The running average after one more step. Early on it forgets faster, so that the initial
    parameters do not weigh on it: the decay is (1 + step) / (10 + step) until it is `decay`."""
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema, params)


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
