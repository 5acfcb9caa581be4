"""Builds data sets and finds the built ones.

A data set is named `name` or `name/config`, and stands in ROOT/name/config/version/ as ArrayRecord
shards with TFDS's own metadata. While it is being built it stands beside, in version.incomplete/,
shard by shard; a build that was stopped goes on with the shards that are missing. checksums.json
is written last: a folder without it is not finished. Data sets built elsewhere need none; dav
reads them and never touches them.

    python -m dav.data.prepare NAME --raw=DIR --out=ROOT        (--help says more)
"""

import contextlib
import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from dav.data import building, catalog, shards
from dav.data.finishing import MARKER, PLAN, REPORT, finish, lasting
from dav.data.frames import Builder
from dav.errors import ConfigError, DavError
from dav.files import hold, read_json, write_json


def find(root, name):
    """The folder of the newest finished version of data set `name` below root, or None."""
    marker = MARKER if catalog.can_build(name) else "dataset_info.json"
    versions = [path.parent for path in (Path(root) / name).glob(f"*/{marker}")]
    versions = [path for path in versions if not path.name.endswith(".incomplete")]
    return max(versions, key=_version, default=None)


def _version(folder):
    """1.10.0 comes after 1.9.0."""
    return [int(part) if part.isdigit() else -1 for part in folder.name.split(".")]


def prepare(root, name, *, raw=None, options=None, run=building.in_process, tell=None):
    """Builds data set `name` below root from the folder `raw`, or checks it where it stands.

    Does nothing to a finished set whose files have the recorded checksums, nor to one that was
    built elsewhere; continues an unfinished one; of a damaged one, rebuilds the damaged shards.
    Raises ConfigError for a finished set that was made from another description than `raw` has.
    `run(shards, tell)` does the work (building.py, beam.py) and calls tell(done items, total items,
    images). Returns the folder.
    """
    root = Path(root)
    folder = find(root, name)
    if folder and not catalog.can_build(name):
        return folder
    builder = catalog.builder_of(name)
    if not str(root).isprintable():
        raise ConfigError(f"the folder {str(root)!r} must have a name of plain text")
    damaged = damaged_files(folder) if folder else []
    if folder and not {MARKER, REPORT} & set(damaged):
        _check_description(folder, builder, raw)
    if folder and not damaged:
        _options(folder, options)
        return folder
    with _only_process(root / name, name):
        splits = _plan(builder, raw, folder, damaged)
        final = root / name / builder.version
        staged = final.with_name(f"{builder.version}.incomplete")
        _reopen(final, staged, damaged if folder == final else None)
        options = _options(staged, options)
        return _build(builder, splits, raw, staged, final, options, run, tell or _untold)


def _untold(*counts):
    pass


@contextlib.contextmanager
def _only_process(folder, name):
    """Two processes must not build one set: each would sweep up the other's files."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as lock:
        hold(lock, f"another process is preparing {name} in {folder}; wait for it")
        yield


def _reopen(final, staged, suspects):
    """Turns a finished set with damage among `suspects` (None: anywhere) into an unfinished one
    that lacks the damaged files. Killed at any moment, it leaves either."""
    if not final.exists():
        return
    if not (final / PLAN).exists() and not (final / MARKER).exists():
        raise DavError(
            f"{final} is not a set that dav has finished, for it has no {MARKER}; move it away, or "
            "delete it"
        )
    for name in damaged_files(final, suspects):
        (final / name).unlink(missing_ok=True)
    shutil.rmtree(staged, ignore_errors=True)
    os.replace(final, staged)
    (staged / MARKER).unlink(missing_ok=True)


def _check_description(folder, builder, raw):
    """Who changed what maps mean must not take what was built before for the new set."""
    if not builder.description or raw is None or not Path(raw).is_dir():
        return
    made = read_json(folder / REPORT).get("description")  # sets of earlier versions have none
    if made is not None and made != builder.description(Path(raw)):
        raise ConfigError(
            f"{folder} was made from another dataset.yaml than {raw} has now; delete {folder} to "
            "build it anew"
        )


def _options(folder, options):
    """The options of a set, finished or not: those that it was begun with. Raises ConfigError if
    other ones are given."""
    begun = next((folder / n for n in (PLAN, REPORT) if (folder / n).exists()), None)
    stored = begun and read_json(begun)["options"]
    if not stored:
        return options or shards.Options()
    if options is None:
        options = shards.Options(**stored | {"sky": ""})
    given = lasting(options)
    changed = [f"{key}={stored.get(key)}" for key in given if given[key] != stored.get(key)]
    if changed:
        raise ConfigError(
            f"{folder} was begun with other options ({', '.join(changed)}); give the same, or "
            "delete it to begin anew"
        )
    return options


def _build(builder: Builder, splits, raw, staged, final, options, run, tell):
    staged.mkdir(parents=True, exist_ok=True)
    _check_plan(staged, builder, splits, options)
    work = {
        split: _shards_of(builder, raw, staged, split, items, options)
        for split, items in splits.items()
    }
    everything = [shard for part in work.values() for shard in part]
    missing = [shard for shard in everything if not shards.is_done(shard)]
    with _swept(staged):
        run(missing, _telling(everything, missing, tell))
    parts = [read_json(shard.part) for shard in everything]
    if not any(part["records"] for part in parts):
        raise DavError(_nothing(builder, raw, parts))
    if not any(part["targets"] for part in parts):
        _drop_duplicates(everything)
    finish(builder, raw, staged, work, options)
    os.replace(staged, final)
    return final


@contextlib.contextmanager
def _swept(folder):
    """Without what killed processes left behind, before and after."""

    def sweep():
        for stale in folder.rglob("*.tmp"):
            stale.unlink(missing_ok=True)

    sweep()
    try:
        yield
    finally:
        sweep()


def _plan(builder, raw, folder, damaged):
    """The work items of every split, as a tuple. Raises DavError for a raw folder without any.

    `damaged` files of the finished set in `folder` are named where they cannot be made again.
    """
    if raw is not None and not Path(raw).is_dir():
        raise ConfigError(f"the raw folder {raw} of {builder.name} does not exist")
    needs_raw = not builder.name.startswith("sample/")
    if needs_raw and raw is None:
        broken = f"{folder} is damaged ({_some(damaged)}), and " if damaged else ""
        raise ConfigError(
            f"{broken}{builder.name} is made from its authors' files: say where they are "
            "(--raw=DIR; docs/data.md tells how to obtain them)"
        )
    found = builder.plan(Path(raw) if raw is not None else None)
    splits = {split: tuple(items) for split, items in found.items() if items}
    if not splits:
        raise DavError(f"the raw folder {raw} of {builder.name} holds nothing that it could read")
    return splits


def _some(names):
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _check_plan(staged, builder, splits, options):
    """What a build was begun from must not change until it is finished, once a shard of it is."""
    digest = hashlib.sha256(repr(sorted(splits.items())).encode()).hexdigest()
    counts = {split: len(items) for split, items in splits.items()}
    plan = {"name": builder.name, "version": builder.version, "items": counts}
    plan |= {"sha256": digest, "options": lasting(options)}
    path = staged / PLAN
    if not any(staged.glob("parts/*.json")):
        shutil.rmtree(staged)  # what is left there belongs to no finished shard
    if not path.exists():
        write_json(path, plan)
    elif plan != read_json(path):
        raise DavError(
            f"{staged} was begun with other files in the raw folder; restore them to continue, or "
            "delete it to begin anew"
        )


def _shards_of(builder, raw, staged, split, items, options):
    size = builder.items_per_shard
    groups = [items[start : start + size] for start in range(0, len(items), size)]
    raw = Path(raw) if raw is not None else None
    return [
        shards.Shard(builder, raw, staged, split, index, len(groups), group, options)
        for index, group in enumerate(groups)
    ]


def _telling(everything, missing, tell):
    """From counts of the shards at work to counts of the whole set."""
    total = sum(len(shard.items) for shard in everything)
    before = total - sum(len(shard.items) for shard in missing)
    tell(before, total, 0)
    return lambda items, images: tell(before + items, total, images)


def _nothing(builder, raw, parts):
    reasons = [line for part in parts for line in part["skipped"]]
    first = f"; the first: {reasons[0]['id']}: {reasons[0]['reason']}" if reasons else ""
    return f"not one example of {builder.name} in {raw} could be used{first}"


def _drop_duplicates(everything):
    """Of images that are equal byte for byte, only the first of the set stays."""
    digests = [shards.digests_of(shard) for shard in everything]
    ends = np.cumsum([len(part) for part in digests])
    _, first = np.unique(np.concatenate(digests), axis=0, return_index=True)
    gone = np.ones(ends[-1], bool)
    gone[first] = False
    for shard, end, part in zip(everything, ends, digests, strict=True):
        shards.drop_records(shard, np.flatnonzero(gone[end - len(part) : end]).tolist())


def damaged_files(folder, among=None):
    """The files of a finished set, of all or `among` these, that are missing or differ from their
    checksums."""
    folder = Path(folder)
    recorded = _recorded(folder)
    names = [name for name in recorded if among is None or name in among]
    sums = building.checksums([folder / name for name in names])
    return [name for name, found in zip(names, sums, strict=True) if found != recorded[name]]


def _recorded(folder):
    """File name → checksum. Where the list itself is lost, what the parts say."""
    try:
        recorded = read_json(folder / MARKER)
        if isinstance(recorded, dict):
            return recorded
    except (DavError, FileNotFoundError):
        pass
    parts = [shards.read_part(path) for path in sorted(folder.glob("parts/*.json"))]
    return {MARKER: "lost"} | {part["file"]: part["sha256"] for part in parts if part}


if __name__ == "__main__":
    from dav.prepare import main

    sys.exit(main(sys.argv))
