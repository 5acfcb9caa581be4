"""The objectives beside slow.py: their values, and their gradients along random directions.

Fixed random maps: slopes with noise, a fifth of the pixels invalid, targets in 1024 steps so that
they tie. Predictions do not: at ties the median has no slope to compare with.
tools/parity_table.py prints the rows.
"""

import functools

import jax
import numpy as np
import slow

from dav.objectives.affine_invariant import affine_invariant
from dav.objectives.cutmix import cutmix_loss, neighbour
from dav.objectives.feature_alignment import feature_alignment
from dav.objectives.gradient_matching import gradient_matching
from dav.objectives.scale_invariant_log import scale_invariant_log

SHAPE = (4, 60, 80)
BOUND = 1e-5
STEP = 1e-6  # of the difference quotient
DIRECTIONS = 4


def maps():
    """prediction, target, valid [B, H, W]."""
    rng = np.random.default_rng(0)
    y, x = np.indices(SHAPE[1:]) / SHAPE[2]
    target = y + 0.5 * np.sin(9 * x) + 0.3 * rng.random(SHAPE)
    prediction = 7 * target + 2 + rng.normal(size=SHAPE)
    target = np.rint(1024 * target / np.ptp(target)) / 1024
    return prediction.astype(np.float32), target.astype(np.float32), rng.random(SHAPE) < 0.8


def mixed_maps():
    """prediction, target, valid, other, other_valid, masks [B, H, W]; the last is not mixed."""
    prediction, target, valid = maps()
    masks = np.zeros(SHAPE, bool)
    masks[0, 5:40, 8:31], masks[1, :12, 60:], masks[2, 30:, 10:75] = True, True, True
    other, other_valid = (np.asarray(neighbour(x)) for x in (target, valid))
    return prediction, target, valid, other, other_valid, masks


def features():
    """tokens, frozen [B, h, w, D], from nearly the same to nothing alike."""
    rng = np.random.default_rng(1)
    frozen, noise = rng.normal(size=(2, 4, 6, 8, 48))
    tokens = frozen + np.linspace(0.05, 2, 48).reshape(6, 8, 1) * noise
    return tokens.astype(np.float32), (3 * frozen).astype(np.float32)


def depths():
    """predicted_m, depth_m, valid [B, H, W]."""
    prediction, target, valid = maps()
    return np.exp(prediction / 8), 0.8 * np.exp(2 * target), valid


# (name, ours, reference, arguments, options)
OBJECTIVES = (
    ("affine-invariant", affine_invariant, slow.affine_invariant, maps, {}),
    *(
        (
            f"affine-invariant, trimmed as in {paper}",
            affine_invariant,
            slow.affine_invariant,
            maps,
            o,
        )
        for paper, o in (("V2", {"trim": 0.1}), ("MiDaS", {"trim": 0.2, "mean_over_kept": False}))
    ),
    ("CutMix", cutmix_loss, slow.cutmix, mixed_maps, {}),
    ("CutMix, trimmed as in V2", cutmix_loss, slow.cutmix, mixed_maps, {"trim": 0.1}),
    ("gradient matching", gradient_matching, slow.gradient_matching, maps, {}),
    ("feature alignment", feature_alignment, slow.feature_alignment, features, {"margin": 0.85}),
    *(
        (f"scale-invariant log, {paper}", scale_invariant_log, slow.scale_invariant_log, depths, o)
        for paper, o in (
            ("V2", {"variance_weight": 0.5}),
            ("ZoeDepth", {"variance_weight": 0.85, "factor": 10.0}),
        )
    ),
)


def value_error(ours, reference, arguments, options):
    """Largest relative error of the mean over an image; infinite where the counts differ."""
    run = jax.jit(functools.partial(ours, **options))
    found = []
    for index in range(SHAPE[0]):
        one = [x[index : index + 1] for x in arguments()]
        total, count = run(*one)
        expected, number = reference(*one, **options)
        error = abs(float(total) - expected) / abs(expected)
        found.append(error if count == number else np.inf)
    return max(found)


def gradient_error(ours, reference, arguments, options):
    """Largest error of the slope along a direction, in parts of the largest slope; of the sum over
    the batch, against the difference quotient of the reference."""
    prediction, *rest = arguments()
    gradient = jax.jit(jax.grad(lambda p: ours(p, *rest, **options)[0]))(prediction)
    gradient, rng = np.asarray(gradient, np.float64), np.random.default_rng(2)
    found, expected = [], []
    for _ in range(DIRECTIONS):
        direction = rng.normal(size=prediction.shape) * (np.sign(gradient) + 0.5)
        ahead, behind = (
            reference(prediction + step * direction, *rest, **options)[0] for step in (STEP, -STEP)
        )
        expected.append((ahead - behind) / (2 * STEP))
        found.append(np.sum(gradient * direction))
    return np.abs(np.subtract(found, expected)).max() / np.abs(expected).max()


def rows():
    """(objective, reference, largest error, bound) of every value and gradient."""
    plain = "the formula, NumPy float64"
    quotient = "its difference quotient"
    found = []
    for name, *case in OBJECTIVES:
        found.append((name, plain, value_error(*case), BOUND))
        found.append((f"{name}: gradient", quotient, gradient_error(*case), BOUND))
    return found
