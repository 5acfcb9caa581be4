"""Small pictures of images, truth and predictions, for a page; they stay compressed till shown.

Shapes: H W the image, h w the picture, k×k pixels of the one are one of the other.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dav import viz
from dav.evaluation import alignment, scoring
from dav.evaluation.results import SHOWN_PX

MAX_ERROR = 0.5  # relative error at the bright end of error maps
QUALITY = 92  # of JPEG
SPARSE = 0.5  # below this share of valid pixels, as with lidar, points are drawn larger
NEIGHBOURS = np.ones((3, 3), np.uint8)
LINE_RGB, CLOSER_RGB, FARTHER_RGB = (255, 255, 255), (60, 220, 90), (240, 60, 60)


@dataclass(frozen=True)
class Kept:
    """What results.Shown is, with the pictures as JPEG files until they are asked for."""

    id: str
    files: dict  # "image", "truth" → bytes; "aligned", "error" → {model: bytes}
    figures: dict  # model → {metric: float}

    @property
    def image(self):
        return _decode(self.files["image"])

    @property
    def truth(self):
        return _decode(self.files["truth"])

    @property
    def aligned(self):
        return {model: _decode(file) for model, file in self.files["aligned"].items()}

    @property
    def error(self):
        return {model: _decode(file) for model, file in self.files["error"].items()}


def draw_depth(example, mask, rules, predictions, scores):
    """Kept of an image with measured depth; predictions and scores by model."""
    depth = np.where(mask, example["depth"], 1.0)
    truth, seen = pool(1 / depth, mask)
    low, high = viz.disparity_range(truth, seen)
    bounds = scoring.limits(example["depth"][mask].astype(np.float64), rules)
    aligned, error = {}, {}
    for model, prediction in predictions.items():
        found = alignment.aligned_depth(prediction, scores[model].alignment, bounds)
        everywhere = np.ones_like(mask)
        aligned[model] = _encode(viz.colorize(pool(1 / found, everywhere)[0], low, high))
        off, shown = pool(np.abs(found - depth) / depth, mask)
        picture = viz.colorize(off, 0, MAX_ERROR, valid=shown, colormap=cv2.COLORMAP_VIRIDIS)
        error[model] = _encode(picture)
    files = {
        "image": _encode(shrink(example["image"])),
        "truth": _encode(viz.colorize(truth, low, high, valid=seen)),
    }
    figures = {model: one.figures for model, one in scores.items()}
    return Kept(example["id"], files | {"aligned": aligned, "error": error}, figures)


def draw_pairs(example, predictions, scores, metric_models):
    """Kept of an image with pairs of points."""
    image, points = shrink(example["image"]), example["pairs"]
    scale = image.shape[0] / example["image"].shape[0]
    aligned, error = {}, {}
    for model, prediction in predictions.items():
        values, _ = pool(prediction, np.ones(prediction.shape, bool))
        values = 1 / np.maximum(values, 1e-6) if model in metric_models else values
        ends = viz.disparity_range(values, np.ones(values.shape, bool))
        picture = viz.colorize(values, *ends)
        aligned[model] = _encode(picture)
        error[model] = _encode(_with_pairs(picture, points[~scores[model].right], scale))
    files = {"image": _encode(image), "truth": _encode(_with_pairs(image, points, scale))}
    figures = {model: one.figures for model, one in scores.items()}
    return Kept(example["id"], files | {"aligned": aligned, "error": error}, figures)


def pool(values, valid):
    """[H, W] → [h, w], each the mean of its valid pixels, and whether there are any; single
    points, as lidar's, grow to their neighbours. Whole cells only: a rest at the edge is cut."""
    k = math.ceil(max(values.shape) / SHOWN_PX)
    height, width = (max(side // k, 1) for side in values.shape)

    def sums(array):
        cut = array[: height * k, : width * k]
        cells = cut.reshape(height, cut.shape[0] // height, width, cut.shape[1] // width)
        return cells.sum(axis=(1, 3), dtype=np.float64)

    total, count = sums(np.where(valid, values, 0)), sums(valid)
    seen = count > 0
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    if seen.mean() < SPARSE:
        grown = cv2.dilate(np.where(seen, mean, 0), NEIGHBOURS)
        mean, seen = np.where(seen, mean, grown), cv2.dilate(seen.astype(np.uint8), NEIGHBOURS) > 0
    return mean, seen


def shrink(image):
    """uint8 RGB [H, W, 3] → [h, w, 3]."""
    k = math.ceil(max(image.shape) / SHOWN_PX)
    height, width = (max(side // k, 1) for side in image.shape[:2])
    cut = image[: height * k, : width * k]
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)


def _with_pairs(image, points, scale):
    """A line from the closer point, green, to the farther, red."""
    image = image.copy()
    for pair in points:
        closer, farther = ((int(column * scale), int(row * scale)) for row, column in pair)
        cv2.line(image, closer, farther, LINE_RGB, 1, cv2.LINE_AA)
        cv2.circle(image, closer, 5, CLOSER_RGB, -1, cv2.LINE_AA)
        cv2.circle(image, farther, 5, FARTHER_RGB, -1, cv2.LINE_AA)
    return image


def _encode(image):
    return viz.encode_jpeg(image, QUALITY)


def _decode(file):
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy()
