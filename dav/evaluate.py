"""Depth of any weights on prepared data sets: figures, and a page with the best and worst images.

    python -m dav.evaluate --weights=SPEC... --data=DIR... --out=DIR [OPTION ...]

SPEC is a work folder, .safetensors, .pth, or hf:org/name[@revision]. DIR is the folder of a
prepared data set, or any folder above several. Both may be given several times, or with commas.
DIR of --out gets eval.json and index.html; the same command again does only what is missing.

    --split=NAME            of every set (its protocol's, else test, heldout, val or the only one)
    --align=HOW             lstsq_disparity, lstsq_depth, median, none (lstsq_disparity; none for
                            metric weights)
    --max_depth_m=N         cap (that of the set's protocol; 80 where there is none)
    --min_depth_m=N         (that of the set's protocol; 0.001 where there is none)
    --crop=NAME             none, garg, eigen, nyu, kb, kb_garg (that of the set's protocol)
    --space=disparity       AbsRel in disparity, too
    --limit=N               images of each set, evenly spaced
    --size_px=518           short side that the network sees
    --dtype=float32         or bfloat16
    --batch_size=N          images at once (by the device)

    --compilation_cache=DIR --coordinator=HOST:PORT --process_id=K --num_processes=N
                            as of dav.main: several processes share the images, `workdir` is OUT

docs/evaluation.md has the protocols. Exit codes: 0 done; 2 wrong usage; 75 stopped on request,
start again to continue; 1 anything else.
"""

import contextlib
import sys
from pathlib import Path

import jax
import numpy as np

from dav import evaluation_data, evaluation_page, evaluation_run, folders, report
from dav import main as entry
from dav.data import inspect
from dav.errors import ConfigError
from dav.evaluation.engine import Model
from dav.evaluation.tables import make_rows, make_sets, table_text
from dav.evaluation_data import Options
from dav.evaluation_run import Loaded
from dav.files import hold, read_json, write_json
from dav.runtime import processes, workdir
from dav.runtime.gathering import from_first
from dav.runtime.memory import keep_freed_memory


def main(argv):
    """Runs one command; returns its exit code."""

    def work():
        arguments, start = parse(argv)
        entry.quieten()
        keep_freed_memory()
        entry.begin(arguments["out"], **start)
        evaluate_weights(**arguments)

    code = entry.carry_out(argv, __doc__, work, folder_options="--data or --out")
    processes.leave(code)
    return code


def parse(argv):
    """Command line → the arguments of evaluate_weights, and the flags of the start. Raises
    ConfigError for what makes no sense."""
    from absl import flags

    values = flags.FlagValues()
    for name in ("weights", "data"):
        flags.DEFINE_multi_string(name, [], "", flag_values=values)
    for name in ("out", "split", "align", "crop"):
        flags.DEFINE_string(name, "", "", flag_values=values)
    flags.DEFINE_float("max_depth_m", 0.0, "", 0.0, flag_values=values)
    flags.DEFINE_float("min_depth_m", None, "", 0.0, flag_values=values)
    flags.DEFINE_string("space", "depth", "", flag_values=values)
    flags.DEFINE_integer("limit", 0, "", 0, flag_values=values)
    flags.DEFINE_integer("size_px", 518, "", flag_values=values)
    flags.DEFINE_string("dtype", "float32", "", flag_values=values)
    flags.DEFINE_integer("batch_size", None, "", 1, flag_values=values)
    entry.define_start_flags(values)
    entry.read_only_flags(values, argv, required=("weights", "data", "out"))
    names = ("split", "align", "crop", "max_depth_m", "min_depth_m", "space", "limit", "size_px")
    options = Options(**entry.values_of((*names, "dtype", "batch_size"), values))
    evaluation_data.check(options)
    arguments = {
        "specs": split_list(values.weights),
        "data": [Path(folder).expanduser() for folder in split_list(values.data)],
        "out": Path(values.out).expanduser(),
        "options": options,
    }
    return arguments, entry.values_of(entry.START_FLAGS, values)


def split_list(values):
    """["a,b", "c"] → ["a", "b", "c"], each once."""
    return list(dict.fromkeys(one for value in values for one in value.split(",") if one))


def evaluate_weights(specs, data, out, options):
    """The command: writes OUT/eval.json and OUT/index.html, and prints the table."""
    roots = find_sets(data, options)
    loaded = [
        evaluation_run.load(n, s, options) for n, s in zip(names_of(specs), specs, strict=True)
    ]
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "lock", "a") as lock:
        busy = f"another process is evaluating into {out}; wait for it, or choose another"
        from_first(lambda: hold(lock, busy))
        results = evaluation_run.run(roots.get, list(roots), loaded, options, out)
        if jax.process_index() != 0:
            return
        spec_of = {one.model.name: spec for one, spec in zip(loaded, specs, strict=True)}
        rows = make_rows(results)
        content = {"weights": spec_of, "rows": rows, "sets": make_sets(results)}
        title = "Depth on prepared data sets"
        evaluation_page.write_page(out / "index.html", title, results)
        write_json(out / "eval.json", content)
    print(table_text(rows, results))
    print(f"figures: {out / 'eval.json'}, page: {out / 'index.html'}")


def find_sets(data, options):
    """Data set name → the root it stands below, for every set in or below the folders `data`.

    Below a folder of several, sets without ground truth are told and left out.
    """
    roots = {}
    for folder in data:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is no folder; name that of a prepared data set, or one above several"
            )
        found = dict(reversed(inspect.place_of(path)) for path in inspect.find_sets(folder))
        for name, root in found.items():
            if roots.get(name, root) != root:
                raise ConfigError(f"{name} stands below {roots[name]} and below {root}; name one")
            if len(found) > 1 and not evaluation_data.has_truth(root, name, options):
                print(f"{name}: left out, it has no ground truth")
                continue
            roots[name] = root
    if not roots:
        raise ConfigError("none of the data sets has ground truth to evaluate against")
    return roots


def names_of(specs):
    """A short name for every spec: a file's or folder's own, the whole spec where two are alike."""
    short = [spec.rstrip("/").rpartition("/")[2].partition("@")[0] for spec in specs]
    short = [name.removesuffix(".safetensors").removesuffix(".pth") for name in short]
    return [n if n and short.count(n) == 1 else s for n, s in zip(short, specs, strict=True)]


def evaluate(config, paths):
    """The job of a recipe: writes eval.json and report/index.html; returns at once if they stand
    for these weights.

    Beside the trained networks stand two that never look: a constant map, and a ramp from top to
    bottom, which is the best guess without looking in most scenes.
    """
    if not config.evaluation.sets:
        raise ConfigError("config.evaluation.sets is empty; name data sets to evaluate on")
    workdir.check_config(paths.workdir, folders.identity(config))
    if is_done(config, paths):
        print("evaluation: done, nothing left to do")
        return
    options = job_options(config)
    loaded = [*trained_models(config, paths, options), *blind_models()]
    with sole_writer(config, paths):
        results = evaluation_run.run(
            lambda name: paths.data,
            config.evaluation.sets,
            loaded,
            options,
            paths.workdir / "report",
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
    """A recipe's evaluation as options of the engine."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
