"""Figures by which a person sees that an example, or a whole data set, is not what it should be.

Shapes: H W image. Nearness is the logarithm of disparity: larger is nearer, and a wrong unit only
shifts it. Pure NumPy.
"""

from dataclasses import dataclass, field

import numpy as np

from dav.data.frames import DEPTH_M, DISPARITY, PAIRS

GRID = 96  # cells along the longer side, where edges are compared
MIN_CELLS = 200  # with measured neighbours, below which edges are not compared
FLOOR = np.log(100)  # what is farther than 1/100 of the 98th percentile's disparity is as far
MIRRORS = ("as it is", "left-right", "upside down", "both ways")
DEPTH_EDGES_M = np.logspace(-2, 4, 145)
DISPARITY_EDGES = np.linspace(0, 1, 41)  # of each map's 98th percentile; the rest is in the last
SHARE_EDGES = np.linspace(0, 1, 21)
PERCENTILES = (1, 50, 99)
MOST_VALUES = 20_000  # of a map that percentiles are taken of


@dataclass(frozen=True)
class Measures:
    """One example in figures; nan where there is nothing to measure."""

    id: str
    height: int
    width: int
    brightness: float  # mean grey, 0 to 1
    contrast: float  # standard deviation of grey
    quantity: str = ""  # frames.py; empty: unlabelled
    unit: float = 0.0  # of the stored steps; 0: logarithmic
    valid: float = np.nan  # share of measured pixels, without the sky
    sky: float = 0.0  # share of sky
    sky_above: float = np.nan  # share of the sky that is in the upper half
    percentiles: tuple = (np.nan,) * 3  # PERCENTILES of the measured values, in their own unit
    rises: float = np.nan  # 1: the lower third of what is known is nearer than the upper; 0: not
    edges: tuple = (np.nan,) * 4  # correlation of image and target edges, by MIRRORS of the target
    depth_counts: np.ndarray = field(default_factory=lambda: np.zeros(144))  # by DEPTH_EDGES_M
    disparity_counts: np.ndarray = field(default_factory=lambda: np.zeros(40))
    pairs: int = 0
    pairs_below: float = np.nan  # share of pairs whose closer point is the lower one
    pairs_outside: int = 0  # points outside of the image


def measure_image(name, image):
    """Measures of an unlabelled image, uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    grey = thinned_grey(image) / 255
    return Measures(name, height, width, float(grey.mean()), float(grey.std()))


def thinned_grey(image):
    """Mean of the channels, float32, 0 to 255, of every so many rows and columns, such that a few
    of each remain for every cell of the grid."""
    step = max(1, max(image.shape[:2]) // (4 * GRID))
    red, green, blue = np.moveaxis(image[::step, ::step].astype(np.float32), -1, 0)
    return (red + green + blue) / 3


def measure_pairs(name, image, points):
    """Measures of an image with point pairs, int [N, 2, 2]: pair, (closer, farther), (row,
    column)."""
    figures = vars(measure_image(name, image)) | {"quantity": PAIRS, "pairs": len(points)}
    if len(points):
        rows = points[..., 0]
        figures["pairs_below"] = float((rows[:, 0] > rows[:, 1]).mean())
        outside = (points < 0) | (points >= image.shape[:2])
        figures["pairs_outside"] = int(outside.any(-1).sum())
    return Measures(**figures)


def measure_map(name, image, quantity, unit, values, measured, sky):
    """Measures of an image with a map.

    image uint8 [H, W, 3]; values float32 [H, W] in `quantity`'s unit; measured bool [H, W], without
    the sky; sky bool [H, W].
    """
    figures = vars(measure_image(name, image)) | {"quantity": quantity, "unit": unit}
    figures |= {"valid": float(measured.mean()), "sky": float(sky.mean())}
    if sky.any():
        figures["sky_above"] = float(sky[: sky.shape[0] // 2].sum() / sky.sum())
    inside = values[measured].astype(np.float64)
    if inside.size:
        inside = inside[:: max(1, inside.size // MOST_VALUES)]
        figures["percentiles"] = tuple(np.percentile(inside, PERCENTILES).tolist())
        nearness = log_nearness(values, quantity, measured)
        figures["rises"] = rises(nearness, measured, sky)
        figures["edges"] = edge_agreement(image, nearness, measured)
        counts, _ = np.histogram(np.clip(inside, *DEPTH_EDGES_M[[0, -1]]), DEPTH_EDGES_M)
        figures["depth_counts"] = counts / inside.size
        disparity = inside if quantity == DISPARITY else 1 / inside
        disparity = np.clip(disparity / np.percentile(disparity, 98), 0, 1)
        counts, _ = np.histogram(disparity, DISPARITY_EDGES)
        figures["disparity_counts"] = counts / inside.size
    return Measures(**figures)


def log_nearness(values, quantity, measured):
    """Logarithm of disparity, float32 [H, W], cut where it is too far to matter; 0 elsewhere."""
    logs = np.log(values[measured]) * (1 if quantity == DISPARITY else -1)
    nearness = np.zeros(values.shape, np.float32)
    nearness[measured] = np.maximum(logs, np.percentile(logs, 98) - FLOOR)
    return nearness


def rises(nearness, measured, sky):
    """1.0 if the lower third of the known pixels is nearer than the upper third, 0.0 if not.

    Thirds of what is known, not of the image: lidar sees no upper third. Sky is farthest.
    """
    known = np.where(sky, -np.inf, nearness)[measured | sky]  # row by row, from above
    known = known[:: max(1, len(known) // MOST_VALUES)]
    third = len(known) // 3
    if third < 50:
        return np.nan
    return float(np.median(known[-third:]) > np.median(known[:third]))


def edge_agreement(image, nearness, measured):
    """Correlation of the strength of image edges with that of the target's, mirrored four ways.

    Of the right target, the first is the largest in most images; nan where too little is measured.
    """
    side = max(max(image.shape[:2]) / GRID, 1)
    size = tuple(max(1, round(length / side)) for length in image.shape[:2])
    grey = block_mean(thinned_grey(image), size)
    share = block_mean(measured.astype(np.float32), size)
    known = share > 0
    cells = block_mean(nearness, size) / np.where(known, share, 1)
    seen, _ = edge_strength(np.log(grey + 8), np.ones(size, bool))
    strength, inner = edge_strength(cells, known)
    if inner.sum() < MIN_CELLS:
        return (np.nan,) * 4
    mirrors = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    return tuple(
        _correlation(
            seen[inner[::down, ::right]], strength[::down, ::right][inner[::down, ::right]]
        )
        for down, right in mirrors
    )


def edge_strength(cells, known):
    """The root of the gradient's length in the inner cells whose four neighbours are known.

    float [h, w], bool [h, w] → float [h-2, w-2], bool [h-2, w-2]. The root keeps the strongest
    edges from deciding alone.
    """
    down = cells[2:, 1:-1] - cells[:-2, 1:-1]
    right = cells[1:-1, 2:] - cells[1:-1, :-2]
    inner = known[2:, 1:-1] & known[:-2, 1:-1] & known[1:-1, 2:] & known[1:-1, :-2]
    return np.sqrt(np.hypot(down, right)), inner


def _correlation(a, b):
    """Pearson's; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def block_mean(values, size):
    """[H, W] → [*size] by means over blocks that differ in size by at most one row or column."""
    for axis, count in enumerate(size):
        starts = np.arange(count) * values.shape[axis] // count
        lengths = np.diff([*starts, values.shape[axis]])
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / (lengths[:, None] if axis == 0 else lengths)
    return values


def oddness(examples):
    """How far each example stands from the others: [(score, figure, why)] in the order of the
    Measures.

    The score is the largest distance of a figure from its median, in robust standard deviations
    (1.4826 times the median absolute deviation).
    """
    scored = [(0.0, "", "")] * len(examples)
    for name, (figure, floor, show) in _figures(examples).items():
        values = np.array([figure(one) for one in examples], float)
        if not np.isfinite(values).any():
            continue
        middle = np.nanmedian(values)
        spread = max(1.4826 * np.nanmedian(np.abs(values - middle)), floor)
        for index, distance in enumerate(np.nan_to_num(np.abs(values - middle) / spread)):
            if distance > scored[index][0]:
                why = f"{name} {show(values[index])} (of the set: {show(middle)})"
                scored[index] = float(distance), name, why
    return scored


def _figures(examples):
    """What oddness looks at: name → (Measures → number, smallest spread that counts, number →
    text)."""
    figures = {
        "brightness": (lambda m: m.brightness, 0.05, _percent),
        "contrast": (lambda m: m.contrast, 0.03, _percent),
        "pixels": (lambda m: _log(m.height * m.width), 0.05, _whole),
        "width over height": (lambda m: _log(m.width / m.height), 0.05, _exponential),
    }
    if examples[0].quantity == PAIRS:
        figures |= {
            "pairs": (lambda m: m.pairs, 1.0, "{:.0f}".format),
            "points outside": (lambda m: m.pairs_outside, 0.1, "{:.0f}".format),
        }
    elif examples[0].quantity:
        figures |= {
            "valid share": (lambda m: m.valid, 0.02, _percent),
            "sky": (lambda m: m.sky, 0.05, _percent),
            "far over near": (
                lambda m: _log(m.percentiles[2] / m.percentiles[0]),
                0.2,
                _exponential,
            ),
            "agreement of edges": (lambda m: m.edges[0], 0.05, "{:.2f}".format),
        }
    if examples[0].quantity == DEPTH_M:  # what is up to scale in each image says nothing
        figures |= {
            "nearest depth": (lambda m: _log(m.percentiles[0]), 0.1, _metres),
            "median depth": (lambda m: _log(m.percentiles[1]), 0.1, _metres),
            "farthest depth": (lambda m: _log(m.percentiles[2]), 0.1, _metres),
        }
    return figures


def _log(value):
    return np.log(value) if value > 0 else np.nan


def _whole(value):
    return f"{np.exp(value):,.0f}"


def _exponential(value):
    return f"{np.exp(value):.4g}"


def _metres(value):
    return f"{np.exp(value):.4g} m"


def _percent(value):
    return f"{100 * value:.3g} %"
