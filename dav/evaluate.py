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
    --size_px=N             short side that the network sees (default: that of its training, 518 for
                            the releases)
    --dtype=float32         or bfloat16
    --batch_size=N          images at once (by the device)

    --compilation_cache=DIR --coordinator=HOST:PORT --process_id=K --num_processes=N
                            as of dav.main: several processes share the images, `workdir` is OUT

docs/evaluation.md has the protocols. Exit codes: 0 done; 2 wrong usage; 75 stopped on request,
start again to continue; 1 anything else.
"""

import dataclasses
import sys

from dav import main as entry
from dav.errors import ConfigError
from dav.files import hold, local_path, write_json
from dav.runtime import processes
from dav.runtime.interrupts import stop_request
from dav.runtime.memory import keep_freed_memory


def main(argv):
    """Runs one command; returns its exit code."""

    def work():
        arguments, start = parse(argv)
        with stop_request() as stop:  # an interrupt at any point could get lost in a library
            entry.quieten()
            keep_freed_memory()
            entry.begin(arguments["out"], **start)
            evaluate_weights(**arguments, stop=stop)

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
    flags.DEFINE_integer("size_px", None, "", flag_values=values)
    flags.DEFINE_string("dtype", "float32", "", flag_values=values)
    flags.DEFINE_integer("batch_size", None, "", 1, flag_values=values)
    entry.define_start_flags(values)
    entry.read_only_flags(values, argv, required=("weights", "data", "out"))
    from dav import evaluation_data  # after what costs nothing

    names = ("split", "align", "crop", "max_depth_m", "min_depth_m", "space", "limit", "size_px")
    options = evaluation_data.Options(**entry.values_of((*names, "dtype", "batch_size"), values))
    evaluation_data.check(options)
    arguments = {
        "specs": split_list(values.weights),
        "data": [local_path(folder) for folder in split_list(values.data)],
        "out": local_path(values.out),
        "options": options,
    }
    return arguments, entry.values_of(entry.START_FLAGS, values)


def split_list(values):
    """["a,b", "c"] → ["a", "b", "c"], each once."""
    return list(dict.fromkeys(one for value in values for one in value.split(",") if one))


def evaluate_weights(specs, data, out, options, stop=False):
    """The command: writes OUT/eval.json and OUT/index.html, and prints the table.

    It is interrupted once `stop` is true.
    """
    from dav import evaluation_page, evaluation_run
    from dav.evaluation.tables import make_rows, make_sets, table_text
    from dav.runtime.gathering import from_first

    roots = find_sets(data, options)
    loaded = []
    for name, spec in zip(names_of(specs), specs, strict=True):
        evaluation_run.heed(stop)
        loaded.append(evaluation_run.load(name, spec, options))
    options = dataclasses.replace(options, size_px=common_size_px(loaded))
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "lock", "a") as lock:
        busy = f"another process is evaluating into {out}; wait for it, or choose another"
        from_first(lambda: hold(lock, busy))
        results = evaluation_run.run(roots.get, list(roots), loaded, options, out, stop)
        if not processes.is_first():
            return
        spec_of = {one.model.name: spec for one, spec in zip(loaded, specs, strict=True)}
        rows = make_rows(results)
        content = {"weights": spec_of, "rows": rows, "sets": make_sets(results)}
        title = "Depth on prepared data sets"
        evaluation_page.write_page(out / "index.html", title, results)
        write_json(out / "eval.json", content)
    print(table_text(rows, results))
    print(f"figures: {out / 'eval.json'}, page: {out / 'index.html'}")


def common_size_px(loaded):
    """The short side at which the models see images. Raises ConfigError if each has its own."""
    sizes = {one.size_px: one.model.name for one in loaded}
    if len(sizes) > 1:
        words = ", ".join(f"{name} at {px} px" for px, name in sizes.items())
        raise ConfigError(f"these weights were trained at different sizes: {words}; say --size_px")
    return next(iter(sizes))


def find_sets(data, options):
    """Data set name → the root it stands below, for every set in or below the folders `data`.

    Below a folder of several, sets without ground truth are told and left out.
    """
    from dav import evaluation_data
    from dav.data import inspect

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
            _, records = evaluation_data.open_records(root, name, options)
            lacking = evaluation_data.why_no_truth(name, records)
            if lacking and len(found) > 1:
                print(f"{name}: left out, {lacking}")
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
