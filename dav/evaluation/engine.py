"""All models over one data set, a chunk at a time: every model looks at it, then it is reduced.

What is held: one chunk of images with the models' maps, the figures of all images so far, and small
compressed pictures of a few. Of several processes, each takes every n-th image; what they found is
gathered, so that all have the whole result, the same whatever their number.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dav.errors import DavError
from dav.evaluation import pairs, pictures, scoring
from dav.evaluation.results import EXTREMES, SAMPLES
from dav.threads import in_threads

CHUNK_IMAGES = 64
CHUNK_PIXELS = 64_000_000  # 1 GB with one model's maps
ALONE_PIXELS = 8_000_000  # of an image whose float64 pixels are not held in several threads at once


@dataclass(frozen=True)
class Model:
    """One model as the engine sees it."""

    name: str
    predict_each: Callable  # (key, uint8 [H, W, 3]) … → yields (key, float32 [H, W]), any order
    how: str = "lstsq_disparity"  # alignment.ALIGNMENTS
    is_metric: bool = False  # whether maps are depth in metres; else disparity


@dataclass
class Part:
    """What one process found; picklable. Indices are those of the images chosen of the set."""

    scores: dict = field(default_factory=dict)  # index → {model: figures}
    right: dict = field(default_factory=dict)  # index → (scene, {model: bool [N]}), of pairs
    skipped: dict = field(default_factory=dict)  # index → (id, reason)
    ids: dict = field(default_factory=dict)  # index → id, of all images looked at
    best: dict = field(default_factory=dict)  # model → [(score, index, Kept)], best first
    worst: dict = field(default_factory=dict)
    samples: dict = field(default_factory=dict)  # index → Kept


def look(read, count, models, rules, *, share=(0, 1), tell=lambda done, total: None):
    """The Part of a process: images share[0]::share[1] of the `count` that are evaluated.

    read(indices) yields (index, example) in order: {id, image} with pairs, or with depth float32
    and valid bool [H, W]. tell(done, total) is called after each map. Raises DavError for a
    prediction that is not finite.
    """
    part = Part(best={m.name: [] for m in models}, worst={m.name: [] for m in models})
    wanted = set(spread(count, SAMPLES))
    indices = range(share[0], count, share[1])
    counted = itertools.count(1)

    def told():
        tell(next(counted), len(indices) * len(models))

    for chunk in in_chunks(read(indices)):
        add_chunk(part, chunk, ask(models, chunk, told), models, rules, wanted)
    return part


def ask(models, chunk, told):
    """Every model's map of every image of a chunk: index → {model: float32 [H, W]}."""
    maps = {index: {} for index, _ in chunk}
    ids = {index: example["id"] for index, example in chunk}
    for model in models:
        for index, map_ in model.predict_each((i, e["image"]) for i, e in chunk):
            check_finite(map_, model.name, ids[index])
            maps[index][model.name] = map_
            told()
    return maps


def add_chunk(part, chunk, maps, models, rules, wanted):
    """Adds what a chunk's maps are worth to a part; images at `wanted` indices become samples."""

    def work(item):
        return scored(item[1], maps[item[0]], models, rules)

    def add_one(item, looked):
        index, example = item
        add(part, index, example, maps.pop(index), models, rules, looked, index in wanted)

    if max(example["image"].size for _, example in chunk) // 3 > ALONE_PIXELS:
        for item in chunk:
            add_one(item, work(item))
        return
    with in_threads(work, chunk) as working:
        for item, looked in working:
            add_one(item, looked.result())


def in_chunks(items):
    """Lists of consecutive (index, example) that fit into memory together."""
    chunk, pixels = [], 0
    for item in items:
        chunk.append(item)
        pixels += item[1]["image"].shape[0] * item[1]["image"].shape[1]
        if len(chunk) == CHUNK_IMAGES or pixels >= CHUNK_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


def check_finite(map_, model, name):
    """Raises DavError for a prediction with NaN or infinity in it."""
    bad = map_.size - int(np.isfinite(map_).sum())
    if bad:
        raise DavError(
            f"the prediction of {model} for {name} is not finite in {bad} of {map_.size} pixels; "
            "its weights are damaged, their training failed, or --dtype is too narrow for them"
        )


def scored(example, maps, models, rules):
    """(model → Score, pixels that count, why the image is left out or "")."""
    if "pairs" in example:
        points = example["pairs"]
        found = {m.name: score_pairs(maps[m.name], points, m.is_metric) for m in models}
        return found, None, "" if len(points) else "no pair of points"
    mask, reason = scoring.counted(example["depth"], example["valid"], rules)
    if reason:
        return {}, mask, reason
    depth, found = example["depth"], {}
    for m in models:
        found[m.name] = scoring.score(
            maps[m.name], depth, mask, rules, how=m.how, is_metric=m.is_metric
        )
    return found, mask, ""


def add(part, index, example, maps, models, rules, looked, is_sample):
    """Adds one image with every model's map, and what `scored` found in it, to a part."""
    scores, mask, reason = looked
    name = part.ids[index] = example["id"]
    if reason:
        part.skipped[index] = name, reason
        return
    if "pairs" in example:
        right = {model: one.right for model, one in scores.items()}
        part.right[index] = pairs.scene_of(name), right
    part.scores[index] = {model: one.figures for model, one in scores.items()}

    def draw():
        if "pairs" in example:
            metric = {m.name for m in models if m.is_metric}
            return pictures.draw_pairs(example, maps, scores, metric)
        return pictures.draw_depth(example, mask, rules, maps, scores)

    keep(part, index, draw, is_sample)


def score_pairs(map_, points, is_metric):
    """Accuracy on one image's pairs."""
    right = pairs.ordered_rightly(map_, points, is_metric=is_metric)
    figures = {"accuracy": float(right.mean())} if len(right) else {}
    return scoring.Score(figures, None, right)


def keep(part, index, draw, is_sample):
    """Draws an image if it is a sample, or among a model's best or worst so far."""
    kept = None
    if is_sample:
        kept = part.samples[index] = draw()
    for model, figures in part.scores[index].items():
        is_pairs = "accuracy" in figures
        loss = -figures["accuracy"] if is_pairs else figures["abs_rel"]
        for found, score in ((part.best[model], loss), (part.worst[model], -loss)):
            if len(found) == EXTREMES and (score, index) > found[-1][:2]:
                continue
            kept = kept or draw()
            found.append((score, index, kept))
            found.sort(key=lambda one: one[:2])
            del found[EXTREMES:]


def spread(count, most):
    """At most `most` indices below `count`, evenly spaced, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def merge(parts, models):
    """The Parts of all processes as one, in order of the images."""

    def extremes(name, model):
        found = [one for part in parts for one in getattr(part, name)[model]]
        return sorted(found, key=lambda one: one[:2])[:EXTREMES]

    by_index = ("scores", "right", "skipped", "ids", "samples")
    return Part(
        **{name: _by_index(parts, name) for name in by_index},
        best={m.name: extremes("best", m.name) for m in models},
        worst={m.name: extremes("worst", m.name) for m in models},
    )


def _by_index(parts, name):
    whole = {}
    for part in parts:
        whole |= getattr(part, name)
    return {index: whole[index] for index in sorted(whole)}


def mean_figures(part, models):
    """model → {metric: mean over images}; of pairs, accuracy over pairs."""
    if part.right:
        return {
            m.name: pairs.accuracies([(scene, one[m.name]) for scene, one in part.right.values()])
            for m in models
        }
    rows = list(part.scores.values())
    return {
        m.name: {key: float(np.mean([r[m.name][key] for r in rows])) for key in rows[0][m.name]}
        for m in models
    }
