"""The evaluation job: zero-shot depth on held-out images, after alignment in disparity.

Beside the trained networks stand two that never look: a constant map, and a ramp from top to
bottom, which is the best guess without looking in most scenes.
"""

from dataclasses import dataclass

import cv2
import jax
import numpy as np

from dav import folders, recipe_network, report
from dav.data import sources
from dav.data.examples import decode_metric_example
from dav.errors import DavError
from dav.files import read_json, write_json
from dav.inference import predict_each
from dav.objectives import alignment, metrics
from dav.runtime import workdir
from dav.runtime.telemetry import Progress

BATCH = 8


@dataclass(frozen=True)
class Scored:
    """One model's look at one image."""

    aligned_m: np.ndarray  # float32 [H, W]
    abs_rel: float
    delta1: float


@dataclass(frozen=True)
class Case:
    """One held-out image with its truth and every model's prediction, in the truth's size."""

    data: str
    id: str
    image: np.ndarray  # uint8 [H, W, 3]
    depth_m: np.ndarray  # float32 [H, W]
    valid: np.ndarray  # bool [H, W]
    scored: dict  # model → Scored


def evaluate(config, paths):
    """Writes eval.json and report/index.html; returns at once if they stand for these weights."""
    workdir.check_config(paths.workdir, folders.identity(config))
    if is_done(config, paths):
        print("evaluation: done, nothing left to do")
        return
    predictors = make_predictors(config, paths)
    with workdir.claim(paths.workdir, folders.identity(config)):
        cases = [
            case
            for name in config.evaluation.sets
            for case in score_set(config, paths, name, predictors)
        ]
        rows = make_rows(config, cases)
        report.write(config, paths, rows, cases)
        write_json(
            paths.workdir / "eval.json",
            {"steps": config.steps, "protocol": protocol(config), "rows": rows},
        )
    print(report.table_text(rows))
    print(f"report: {paths.workdir / 'report' / 'index.html'}")


def is_done(config, paths):
    """Whether the results of the finished training are there."""
    path, page = paths.workdir / "eval.json", paths.workdir / "report" / "index.html"
    if not path.exists() or not page.exists():
        return False
    result = read_json(path)
    return (result.get("steps"), result.get("protocol")) == (config.steps, protocol(config))


def protocol(config):
    """The whole protocol in words; it belongs beside every number."""
    return {
        "sets": list(config.evaluation.sets),
        "split": config.evaluation.split,
        "align": "least squares, scale and shift of disparity, per image, over valid pixels",
        "resize": "prediction to the truth's size, bilinear",
        "short_side_px": config.short_side_px,
        "max_depth_m": config.evaluation.max_depth_m,
        "valid": "measured and not above max_depth_m; predictions are clipped there",
        "crop": "none",
        "mean": "per image, then over images",
    }


def make_predictors(config, paths):
    """Model name → (images uint8 [B, H, W, 3] → disparity [B, H, W])."""
    trained = {config.recipe: (config, paths)}
    if folders.trains_teacher(config):
        teacher = folders.teacher_config(config, paths)
        trained["teacher"] = (teacher, folders.make_paths(teacher, paths.teacher))
    for its_config, its_paths in trained.values():
        folders.check_trained(its_config, its_paths)
    predictors = {
        n: recipe_network.make_predictor(c, p.checkpoints) for n, (c, p) in trained.items()
    }
    return predictors | {"ramp": vertical_ramp, "constant": constant_map}


def constant_map(images):
    """Everything equally far."""
    return np.ones(images.shape[:3], np.float32)


def vertical_ramp(images):
    """Nearer towards the bottom, linearly in disparity."""
    rows = np.linspace(0, 1, images.shape[1], dtype=np.float32)
    return np.broadcast_to(rows[None, :, None], images.shape[:3])


def score_set(config, paths, name, predictors):
    """Every case of one data set; images without a valid pixel are named and left out."""
    records = sources.open_split(paths.data, name, config.evaluation.split)
    examples = list(sources.Decoded(records, decode_metric_example))
    empty = [example["id"] for example in examples if not example["valid"].any()]
    if empty:
        print(f"{name}: no valid pixel in {', '.join(empty)}; left out")
    examples = [example for example in examples if example["valid"].any()]
    if not examples:
        raise DavError(f"data set {name!r} has no image with a valid pixel to evaluate on")
    scored = [{} for _ in examples]
    images, done = [example["image"] for example in examples], 0
    with Progress(f"evaluation on {name}", len(predictors) * len(images), plain_every=1e9) as bar:
        for model, predict in predictors.items():
            for index, disparity in predict_each(
                predict,
                images,
                short_side_px=config.short_side_px,
                batch_size=recipe_network.whole_batch(BATCH),
            ):
                scored[index][model] = score(
                    disparity, examples[index], config.evaluation.max_depth_m
                )
                done += 1
                bar.update(done)
    return [
        Case(name, e["id"], e["image"], e["depth_m"], e["valid"], s)
        for e, s in zip(examples, scored, strict=True)
    ]


def score(disparity, example, max_depth_m):
    """Resizes the prediction to the truth's size, aligns it, and measures."""
    depth_m = example["depth_m"]
    valid = example["valid"] & (depth_m <= max_depth_m)
    height, width = valid.shape
    disparity = cv2.resize(disparity, (width, height), interpolation=cv2.INTER_LINEAR)
    aligned, abs_rel, delta1 = jax.device_get(
        _align_and_measure(disparity[None], depth_m[None], valid[None], max_depth_m)
    )
    return Scored(aligned[0], float(abs_rel[0]), float(delta1[0]))


@jax.jit
def _align_and_measure(disparity, depth_m, valid, max_depth_m):
    aligned = alignment.align_to_depth(disparity, depth_m, valid, max_depth_m=max_depth_m)
    arguments = (aligned, depth_m, valid)
    return aligned, metrics.abs_rel(*arguments), metrics.delta1(*arguments)


def make_rows(config, cases):
    """The figures of every model on every set: means over images of per-image values."""
    return [
        {
            "model": model,
            "data": name,
            "split": config.evaluation.split,
            "images": len(scored),
            "align": "lstsq_disparity",
            "abs_rel": float(np.mean([s.abs_rel for s in scored])),
            "delta1": float(np.mean([s.delta1 for s in scored])),
            "trained_on": all(n in config.data.labelled for n in members),
        }
        for name, members in groups(config).items()
        for model in cases[0].scored
        for scored in [[case.scored[model] for case in cases if case.data in members]]
    ]


def groups(config):
    """Row name → data sets: every set, and all sets that were trained on taken together."""
    rows = {name: (name,) for name in config.evaluation.sets}
    trained = tuple(name for name in rows if name in config.data.labelled)
    return rows | ({"same sources": trained} if len(trained) > 1 else {})
