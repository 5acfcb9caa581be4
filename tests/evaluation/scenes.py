"""Made-up truth and predictions, and the metrics computed slowly, from their formulas."""

import math

import numpy as np


def random_scene(seed, shape=(30, 40), far_m=60.0):
    """(prediction, depth_m, valid), float32, bool: a noisy disparity; a fifth is not measured."""
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(1, far_m, shape)
    prediction = 7 / depth_m * rng.uniform(0.7, 1.4, shape) + 0.3
    return prediction.astype(np.float32), depth_m.astype(np.float32), rng.random(shape) < 0.8


def slow_fit(x, y):
    """Scale and shift by NumPy's general least squares."""
    columns = np.stack([x, np.ones_like(x)], axis=1)
    return np.linalg.lstsq(columns, y, rcond=None)[0]


def slow_metrics(predicted, depth):
    """Every metric by a loop over pixels."""
    pixels = [(float(p), float(g)) for p, g in zip(predicted, depth, strict=True)]
    n = len(pixels)
    logs = [math.log(p) - math.log(g) for p, g in pixels]

    def share(limit):
        return sum(max(p / g, g / p) < limit for p, g in pixels) / n

    return {
        "abs_rel": sum(abs(g - p) / g for p, g in pixels) / n,
        "sq_rel": sum((g - p) ** 2 / g for p, g in pixels) / n,
        "delta1": share(1.25),
        "delta2": share(1.25**2),
        "delta3": share(1.25**3),
        "rmse": math.sqrt(sum((g - p) ** 2 for p, g in pixels) / n),
        "rmse_log": math.sqrt(sum(e * e for e in logs) / n),
        "log10": sum(abs(math.log10(g) - math.log10(p)) for p, g in pixels) / n,
        "silog": 100 * math.sqrt(sum(e * e for e in logs) / n - (sum(logs) / n) ** 2),
    }
