"""Depth metrics of one image, in float64 over its valid pixels; those of a set are their means.

Shapes: N valid pixels of one image. g measured depth, p predicted and aligned depth, both > 0.
Definitions: Eigen et al. (arXiv 1406.2283, §4.2); log10 as Saxena et al.; silog as the KITTI
benchmark's, 100 times the square root.
"""

import numpy as np

DELTA = 1.25
SCALE_FREE = ("abs_rel", "delta1", "delta2", "delta3", "rmse_log", "log10", "silog")


def measure(predicted, depth):
    """p, g [N] → {metric: float}. sq_rel and rmse are in g's unit, the others have none."""
    p, g = np.asarray(predicted, np.float64), np.asarray(depth, np.float64)
    error, log_error = p - g, np.log(p) - np.log(g)
    ratio = np.maximum(p / g, g / p)
    figures = {
        "abs_rel": np.mean(np.abs(error) / g),
        "sq_rel": np.mean(error**2 / g),
        "delta1": np.mean(ratio < DELTA),
        "delta2": np.mean(ratio < DELTA**2),
        "delta3": np.mean(ratio < DELTA**3),
        "rmse": np.sqrt(np.mean(error**2)),
        "rmse_log": np.sqrt(np.mean(log_error**2)),
        "log10": np.mean(np.abs(log_error)) / np.log(10),
        "silog": 100 * np.std(log_error),
    }
    return {name: float(value) for name, value in figures.items()}


def measure_disparity(predicted_disparity, depth):
    """AbsRel in disparity, mean of |1/p − 1/g| · g, for 1/p [N], which may be 0 or below."""
    d = np.asarray(predicted_disparity, np.float64)
    return float(np.mean(np.abs(d * np.asarray(depth, np.float64) - 1)))
