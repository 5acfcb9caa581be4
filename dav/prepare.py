"""The preparation job: builds data sets from the form in which their authors ship them.

    python -m dav.data.prepare NAME --raw=DIR --out=ROOT [OPTION ...]

NAME is a data set, or folder/NAME for one's own images (docs/own_data.md); DIR is the folder of
its raw files (docs/data.md). Leaves ROOT/NAME/VERSION/; stopped at any time, the same command
continues.

    --sky=DIR            sky masks, one ID.png for each example (python -m dav.data.sky)
    --short_side_px=518  unlabelled images are stored no larger; 0: as they are
    --quality=95         of the JPEGs that are written
    --processes=N        that share the work; all cores by default
    --skip_broken        list broken labelled examples in the report instead of stopping
    --beam               build with Apache Beam (pip install -e '.[beam]'); what follows -- is for
                         its runner, as in: --beam -- --runner=FlinkRunner --parallelism=64
    --list               print the data sets that dav can build, and stop

Exit codes: 0 done; 2 wrong usage; 75 stopped, run it again to continue; 1 anything else.
"""

import dataclasses
import functools

from dav import main as entry
from dav.data import building, catalog, shards
from dav.data import prepare as engine
from dav.errors import ConfigError, DavError
from dav.files import local_path, read_json
from dav.runtime.telemetry import Progress

PLAIN_LINES = 100  # where the progress is not shown live
RATE_EVERY_S = 1.0
SPLITS = ("train", "val", "test")  # that builders make, but for the sample's


def main(argv):
    """Runs one command; returns its exit code."""

    def work():
        arguments = parse(argv)
        if arguments is None:
            print("\n".join(catalog.builders()))
            return
        entry.quieten()
        print(prepare_set(**arguments))
        if lacks_sky(arguments["root"], arguments["name"]):
            print(sky_line([arguments["name"]]))

    return entry.carry_out(argv, __doc__, work, folder_options="--out")


def parse(argv):
    """Command line → the arguments of prepare_set; None for --list. Raises ConfigError."""
    from absl import flags

    argv, beam_options = _split_at_dashes(argv)
    values = flags.FlagValues()
    for name in ("raw", "out", "sky"):
        flags.DEFINE_string(name, "", "", flag_values=values)
    defaults = shards.Options()
    flags.DEFINE_integer("short_side_px", defaults.short_side_px, "", 0, flag_values=values)
    flags.DEFINE_integer("quality", defaults.quality, "", 1, 100, flag_values=values)
    flags.DEFINE_integer("processes", building.cores(), "", 1, flag_values=values)
    for name in ("skip_broken", "beam", "list"):
        flags.DEFINE_bool(name, False, "", flag_values=values)
    rest = entry.read_flags(values, argv)
    if values.list:
        return None
    if len(rest) != 1 or not values.out:
        raise ConfigError("one NAME and --out=ROOT are needed (--help shows the usage)")
    if beam_options and not values.beam:
        raise ConfigError("options after -- are for --beam, which is missing")
    catalog.builder_of(rest[0])
    return {
        "name": rest[0],
        "root": local_path(values.out),
        "raw": local_path(values.raw).absolute() if values.raw else None,
        "run": make_run(values.processes, beam_options if values.beam else None),
        "options": _options(values),
    }


def _options(values):
    """The options that were given; None if none was: then a set keeps those it was begun with."""
    names = [field.name for field in dataclasses.fields(shards.Options)]
    given = {name: values[name].value for name in names if values[name].present}
    if given.get("sky"):
        given["sky"] = str(local_path(given["sky"]))
    return shards.Options(**given) if given else None


def _split_at_dashes(argv):
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def make_run(processes, beam_options=None):
    """How shards are built: by so many processes, or by Beam with its own options."""
    if beam_options is None:
        return functools.partial(building.in_processes, processes=processes)
    from dav.data import beam

    return functools.partial(beam.run, beam_options=beam_options)


def prepare_set(name, root, *, raw=None, options=None, run=building.in_process):
    """Builds or checks one data set, shows progress; returns a line that says what stands where,
    and whether `raw` was left alone because the set was there."""
    with Progress(name, 0, batch_s=RATE_EVERY_S) as progress:
        folder = engine.prepare(
            root, name, raw=raw, options=options, run=run, tell=_teller(progress)
        )
    untouched = raw is not None and not progress.total
    said = f"; already prepared, nothing read from {raw}" if untouched else ""
    return summary(name, folder) + said


def _teller(progress):
    def tell(items, total, images):
        progress.total = total
        progress.plain_every = max(1, total // PLAIN_LINES)
        progress.update(items, f"{images} images", unit="items")

    return tell


def summary(name, folder):
    """One line: counts of a finished data set, and where they are told in full."""
    if not (folder / engine.REPORT).exists():
        return f"{name}: built elsewhere, in {folder}"
    report = read_json(folder / engine.REPORT)
    parts = []
    for split, counts in report["splits"].items():
        left_out = [f"{len(counts['skipped'])} skipped"] if counts["skipped"] else []
        left_out += [f"{counts['duplicates']} duplicates"] if counts["duplicates"] else []
        said = f" ({', '.join(left_out)}: {folder / engine.REPORT})" if left_out else ""
        parts.append(f"{split} {counts['records']}{said}")
    return f"{name}: {', '.join(parts)}, in {folder}"


def prepare(config, paths):
    """Builds the missing data sets of a recipe, checks the others' checksums, repairs damage."""
    from dav import recipe

    check_sets(config, paths)
    check_root(config, paths)
    names, complete = recipe.data_set_names(config), not missing_sets(config, paths)
    run = make_run(1 if all(map(is_embedded, names)) else building.cores())
    for name in names:
        print(prepare_set(name, paths.data, raw=raw_folder(config, name), run=run))
    for line in sky_lines(config, paths):
        print(line)
    if complete:
        print("data: every set was there and has been checked, nothing left to do")
    check_sets(config, paths)  # now the splits of all are known


def sky_lines(config, paths):
    """What to say of labelled sets of a recipe and its teacher that are without sky, or will be
    when they are made on the way; nothing, or one line."""
    from dav import folders

    names = list(config.data.labelled)
    if folders.trains_teacher(config):
        names += config.teacher.data.labelled
    lacking = [n for n in dict.fromkeys(names) if lacks_sky(paths.data, n, raw=config.data.raw)]
    return [sky_line(lacking)] if lacking else []


def lacks_sky(root, name, *, raw=""):
    """Whether a data set whose maps do not tell its skies was prepared without masks of them, or is
    not there yet and will be made of the folder `raw`, which takes none."""
    if not (catalog.can_build(name) and catalog.builder_of(name).sky_unmarked):
        return False
    folder = engine.find(root, name)
    if folder is None:
        return bool(raw)
    report = folder / engine.REPORT
    return report.exists() and not read_json(report)["options"]["sky"]


def sky_line(names):
    """What to do for data sets without sky."""
    return (
        f"sky        {', '.join(names)}: without sky masks, so that no sky is supervised as "
        "infinitely far, as in the paper; make masks with python -m dav.data.sky, and "
        'prepare anew with --sky (docs/data.md, "Sky")'
    )


def is_embedded(name):
    """Whether a data set comes with dav."""
    return name.startswith("sample/")


def raw_folder(config, name):
    """Where a data set's raw files are: RAW/NAME, or RAW/DATASET for all sets of one archive; None
    if the config does not say, or there is nothing."""
    if is_embedded(name) or not config.data.raw:
        return None
    raw = local_path(config.data.raw)
    folders = (raw / name, raw / name.partition("/")[0])
    return next((folder for folder in folders if folder.is_dir()), None)


def missing_sets(config, paths):
    """The data sets that are not prepared yet."""
    from dav import recipe

    return [n for n in recipe.data_set_names(config) if engine.find(paths.data, n) is None]


def check_sets(config, paths):
    """Raises ConfigError for a data set that is neither there nor one that dav can build, and for a
    split that an evaluated set lacks, as far as that is known before it is built."""
    for name in missing_sets(config, paths):
        if not catalog.can_build(name):
            raise ConfigError(
                f"data set {name!r} is not in {paths.data}, and dav cannot build it; name one of "
                "python -m dav.data.prepare --list, or say where it is (--config.data.root)"
            )
        catalog.builder_of(name)
    split = config.evaluation.split
    for name in config.evaluation.sets if split else ():
        known = _splits(paths, name)
        if known is not None and split not in known:
            raise ConfigError(
                f"config.evaluation.split={split!r} is none of {name}; it has "
                f"{', '.join(sorted(known))}"
            )


def _splits(paths, name):
    """The splits of a data set as it describes itself, whatever has become of its shards; those
    that it may have once it is built; or None where the description is damaged."""
    folder = engine.find(paths.data, name)
    if folder is None:
        return catalog.builder_of(name).counts if is_embedded(name) else SPLITS
    try:
        return [split["name"] for split in read_json(folder / "dataset_info.json")["splits"]]
    except (DavError, OSError, KeyError, TypeError):  # preparing repairs it
        return None


def check_root(config, paths):
    """A recipe that needs other people's data must be told where it is."""
    lacking = [
        name
        for name in missing_sets(config, paths)
        if not is_embedded(name) and not (raw_folder(config, name) and catalog.can_build(name))
    ]
    if not lacking:
        return
    where = f"not found in {paths.data}" if config.data.root else "config.data.root is empty"
    raw = f"nor in {config.data.raw}" if config.data.raw else "and config.data.raw too"
    raise ConfigError(
        f"preset {config.preset!r} reads data sets that are not prepared ({where}, {raw}): "
        f"{', '.join(lacking)}. Prepare each with python -m dav.data.prepare NAME --raw=DIR "
        "--out=ROOT (docs/data.md) and say --config.data.root=ROOT; or have them made on the way, "
        "with --config.data.raw=RAW where RAW/NAME holds each set's raw files"
    )
