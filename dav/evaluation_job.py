"""The evaluation job of a recipe: its network beside others, on the data sets of its config.

The command for any weights is dav/evaluate.py.
"""

import contextlib

import jax
import numpy as np

from dav import evaluation_run, folders, report
from dav.errors import ConfigError
from dav.evaluation.engine import Model
from dav.evaluation.tables import make_rows, make_sets, table_text
from dav.evaluation_data import Options
from dav.evaluation_run import Loaded
from dav.files import read_json, write_json
from dav.runtime import workdir
from dav.runtime.interrupts import stop_request


def evaluate(config, paths):
    """The job of a recipe: writes eval.json and report/index.html; returns at once if they stand
    for these weights.

    Beside the trained networks stand two that never look: a constant map, and a ramp from top to
    bottom, which is the best guess without looking in most scenes.
    """
    options = job_options(config)
    workdir.check_config(paths.workdir, folders.identity(config))
    if is_done(config, paths):
        print("evaluation: done, nothing left to do")
        return
    loaded = [*trained_models(config, paths, options), *blind_models()]
    with stop_request() as stop, sole_writer(config, paths):
        results = evaluation_run.run(
            lambda name: paths.data,
            config.evaluation.sets,
            loaded,
            options,
            paths.workdir / "report",
            stop,
        )
        if jax.process_index() != 0:
            return
        groups = {"same sources": [n for n in config.evaluation.sets if n in config.data.labelled]}
        rows = make_rows(results, groups, trained_on=config.data.labelled)
        report.write(config, paths, rows, results)
        content = {"steps": config.steps, "protocol": protocol(config), "rows": rows}
        write_json(paths.workdir / "eval.json", content | {"sets": make_sets(results)})
    print(table_text(rows, results))
    print(f"report: {paths.workdir / 'report' / 'index.html'}")


def sole_writer(config, paths):
    """Of several processes that evaluate together, the first holds the work folder for all."""
    if jax.process_index() != 0:
        return contextlib.nullcontext()
    return workdir.claim(paths.workdir, folders.identity(config))


def is_done(config, paths):
    """Whether the results of the finished training are there."""
    path, page = paths.workdir / "eval.json", paths.workdir / "report" / "index.html"
    if not path.exists() or not page.exists():
        return False
    result = read_json(path)
    return (result.get("steps"), result.get("protocol")) == (config.steps, protocol(config))


def protocol(config):
    """What a recipe says about its evaluation; the whole protocol of each set is in its results."""
    return {
        "sets": list(config.evaluation.sets),
        "split": config.evaluation.split,
        "short_side_px": config.short_side_px,
        "max_depth_m": config.evaluation.max_depth_m,
    }


def job_options(config):
    """A recipe's evaluation as options of the engine. Raises ConfigError without data sets."""
    if not config.evaluation.sets:
        raise ConfigError("config.evaluation.sets is empty; name the data sets to evaluate on")
    return Options(
        split=config.evaluation.split,
        max_depth_m=config.evaluation.max_depth_m,
        size_px=config.short_side_px,
        dtype=config.model.dtype,
    )


def trained_models(config, paths, options):
    """The recipe's own network, the teacher of a student, and what fine-tuning began with."""
    trained = {config.recipe: (config, paths)}
    given = {"teacher": config.get("teacher_weights"), "before": config.model.weights}
    if folders.trains_teacher(config):
        teacher = folders.teacher_config(config, paths)
        trained["teacher"] = (teacher, folders.make_paths(teacher, paths.teacher))
    for its_config, its_paths in trained.values():
        folders.check_trained(its_config, its_paths)
    specs = {name: its_paths.workdir for name, (_, its_paths) in trained.items()}
    specs |= {name: spec for name, spec in given.items() if spec}
    return [evaluation_run.load(name, spec, options) for name, spec in specs.items()]


def blind_models():
    """A ramp and a constant map."""

    def asked(draw):
        return lambda items: ((key, draw(*image.shape[:2])) for key, image in items)

    return [
        Loaded(Model("ramp", asked(vertical_ramp)), "none"),
        Loaded(Model("constant", asked(constant_map)), "none"),
    ]


def constant_map(height, width):
    """Everything equally far, float32 [H, W]."""
    return np.ones((height, width), np.float32)


def vertical_ramp(height, width):
    """Nearer towards the bottom, linearly in disparity, float32 [H, W]."""
    rows = np.linspace(0, 1, height, dtype=np.float32)
    return np.broadcast_to(rows[:, None], (height, width))
