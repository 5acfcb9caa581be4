"""Alignment of a relative prediction to measured depth, in float64 over one image's valid pixels.

    lstsq_disparity   scale and shift of disparity, by least squares against 1 / depth (MiDaS,
                      arXiv 1907.01341, eq. 4; Depth Anything evaluates so)
    lstsq_depth       scale and shift of depth, by least squares against depth
    median            depth times the ratio of medians, measured to predicted (Zhou et al., arXiv
                      1704.07813)
    none              depth in metres as it is predicted; for metric weights alone

Shapes: N valid pixels of one image, inside the crop. Depth may be in metres or, where a set's
depth is known up to scale, in the set's own unit.
"""

from dataclasses import dataclass

import numpy as np

ALIGNMENTS = ("lstsq_disparity", "lstsq_depth", "median", "none")
# A disparity below this share of the image's largest counts as that share where depth is needed:
# the networks predict 0 for what is far. So does a metric depth by `median`, which divides by it.
# The authors do not say what they do; we chose it.
FLOOR = 1e-3
FLAT = 1e-14  # variance by squared mean, less than float32 can tell from a constant


@dataclass(frozen=True)
class Alignment:
    """How one prediction becomes depth: fit() makes it, aligned_depth() uses it."""

    how: str  # one of ALIGNMENTS
    is_metric: bool  # the prediction is depth; else disparity
    scale: float
    shift: float
    floor: float  # smallest value of the prediction that is inverted, or a ratio is taken of


def fit(prediction, depth, how, *, is_metric=False):
    """prediction and depth [N], depth > 0 → Alignment.

    A constant prediction has nothing to fit: it becomes the mean, of 1 / depth or of depth, or by
    `median` the median.
    """
    x = np.asarray(prediction, np.float64)
    depth = np.asarray(depth, np.float64)
    floor = FLOOR * x.max() if x.max() > 0 else 1.0
    if how == "lstsq_disparity":
        scale, shift = fit_scale_and_shift(_disparity(x, floor, is_metric), 1 / depth)
    elif how == "lstsq_depth":
        scale, shift = fit_scale_and_shift(_depth(x, floor, how, is_metric), depth)
    elif how == "median":
        scale, shift = np.median(depth) / np.median(_depth(x, floor, how, is_metric)), 0.0
    elif how == "none" and is_metric:
        scale, shift = 1.0, 0.0
    else:
        raise ValueError(f"alignment {how!r} of a {'metric' if is_metric else 'relative'} map")
    return Alignment(how, is_metric, float(scale), float(shift), floor)


def fit_scale_and_shift(x, y):
    """Least-squares scale and shift with scale · x + shift ≈ y, both float64 [N].

    The normal equations of MiDaS, solved about the means. Where their determinant is not above
    zero, as for a constant x or a single pixel, scale is 0 and shift the mean of y; MiDaS sets both
    to 0 there.
    """
    x_mean, y_mean = x.mean(), y.mean()
    dx = x - x_mean
    variance = np.mean(dx * dx)
    if variance <= FLAT * x_mean * x_mean:
        return 0.0, y_mean
    scale = np.mean(dx * (y - y_mean)) / variance
    return scale, y_mean - scale * x_mean


def aligned_depth(prediction, alignment, limits):
    """prediction, any shape → the depth it means, float64, clipped after the fit to limits,
    (nearest, farthest): as disparity at 1 / farthest, where the fit went below it or below 0."""
    near, far = limits
    if alignment.how == "lstsq_disparity":
        return 1 / np.clip(aligned_disparity(prediction, alignment), 1 / far, 1 / near)
    x = np.asarray(prediction, np.float64)
    depth = _depth(x, alignment.floor, alignment.how, alignment.is_metric)
    return np.clip(alignment.scale * depth + alignment.shift, near, far)


def aligned_disparity(prediction, alignment):
    """The disparity of a fit in disparity before any clip; may be 0 or below."""
    x = np.asarray(prediction, np.float64)
    disparity = _disparity(x, alignment.floor, alignment.is_metric)
    return alignment.scale * disparity + alignment.shift


def _disparity(x, floor, is_metric):
    return 1 / np.maximum(x, floor) if is_metric else x


def _depth(x, floor, how, is_metric):
    if is_metric:
        return np.maximum(x, floor) if how == "median" else x
    return 1 / np.maximum(x, floor)
