"""One image, its truth and a prediction → figures.

Shapes: H W the truth's size, which the prediction has been brought to; the truth is never resized.
"""

from dataclasses import dataclass

import numpy as np

from dav.evaluation import alignment, metrics
from dav.evaluation.protocols import crop_box


@dataclass(frozen=True)
class Rules:
    """What of a protocol decides about numbers."""

    max_depth_m: float | None  # None: of truth up to scale; each image's farthest valid depth
    min_depth_m: float
    crop: str
    disparity: bool = False  # whether AbsRel is measured in disparity, too


@dataclass(frozen=True)
class Score:
    """One model's look at one image."""

    figures: dict  # metric → float
    alignment: object  # alignment.Alignment; None for pairs
    right: np.ndarray | None = None  # bool [N], of pairs


def counted(depth, valid, rules):
    """Which pixels count, bool [H, W], and "" or why none does.

    depth float32 [H, W] is read where valid alone. The ends of the range are outside of it.
    """
    top, bottom, left, right = crop_box(rules.crop, *valid.shape)
    inside = np.zeros_like(valid)
    inside[top:bottom, left:right] = valid[top:bottom, left:right]
    if rules.max_depth_m is None:
        return inside, "" if inside.any() else _reason(valid, inside, depth, rules)
    with np.errstate(invalid="ignore"):
        mask = inside & (depth > rules.min_depth_m) & (depth < rules.max_depth_m)
    return mask, "" if mask.any() else _reason(valid, inside, depth, rules)


def _reason(valid, inside, depth, rules):
    if not valid.any():
        return "no valid pixel"
    if not inside.any():
        return f"no valid pixel inside the crop ({rules.crop})"
    low, high = float(depth[inside].min()), float(depth[inside].max())
    return (
        f"no depth between {rules.min_depth_m:g} and {rules.max_depth_m:g} m: the valid pixels "
        f"have {low:.4g} to {high:.4g} m"
    )


def limits(depth, rules):
    """(nearest, farthest) that a prediction is clipped to, for the counted depth [N]."""
    if rules.max_depth_m is None:
        return floor_of(depth), float(depth.max())
    return rules.min_depth_m, rules.max_depth_m


def floor_of(depth):
    """A thousandth of the nearest depth: as far from any measured one as 1 mm from 1 m."""
    return float(depth.min()) / 1000


def score(prediction, depth, mask, rules, *, how, is_metric=False):
    """float32 [H, W] aligned and measured over the counted pixels → Score.

    Pixels outside the mask are not read.
    """
    x, truth = prediction[mask].astype(np.float64), depth[mask].astype(np.float64)
    fitted = alignment.fit(x, truth, how, is_metric=is_metric)
    aligned = alignment.aligned_depth(x, fitted, limits(truth, rules))
    figures = metrics.measure(aligned, truth)
    if rules.max_depth_m is None:
        figures = {name: figures[name] for name in metrics.SCALE_FREE}
    if rules.disparity:
        figures["abs_rel_disparity"] = metrics.measure_disparity(1 / aligned, truth)
        if how == "lstsq_disparity":
            unclipped = alignment.aligned_disparity(x, fitted)
            figures["abs_rel_disparity_unclipped"] = metrics.measure_disparity(unclipped, truth)
    return Score(figures, fitted)
