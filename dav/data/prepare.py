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
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dav.data import building, catalog, shards
from dav.data.frames import Builder
from dav.errors import ConfigError, DavError
from dav.files import checksum, hold, read_json, write_json

MARKER = "checksums.json"
REPORT = "report.json"
PLAN = "plan.json"


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
    `run(shards, tell)` does the work (building.py, beam.py) and calls tell(done items, total items,
    images). Returns the folder.
    """
    root, options = Path(root), options or shards.Options()
    folder = find(root, name)
    if folder and not catalog.can_build(name):
        return folder
    builder = catalog.builder_of(name)
    with _only_process(root / name, name):
        damaged = damaged_files(folder) if folder else []
        if folder and not damaged:
            return folder
        final = root / name / builder.version
        staged = final.with_name(f"{builder.version}.incomplete")
        if folder:
            _reopen(folder, staged, damaged)
        return _build(builder, raw, staged, final, options, run, tell or (lambda *counts: None))


@contextlib.contextmanager
def _only_process(folder, name):
    """Two processes must not build one set: each would sweep up the other's files."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as lock:
        hold(lock, f"another process is preparing {name} in {folder}; wait for it")
        yield


def _reopen(folder, staged, damaged):
    """Turns a finished set with damage into an unfinished one that lacks the damaged files."""
    if not (folder / PLAN).exists():
        shutil.rmtree(folder)
        return
    shutil.rmtree(staged, ignore_errors=True)
    (folder / MARKER).unlink()
    os.replace(folder, staged)
    for name in damaged:
        (staged / name).unlink(missing_ok=True)


def _build(builder: Builder, raw, staged, final, options, run, tell):
    splits = _plan(builder, raw)
    staged.mkdir(parents=True, exist_ok=True)
    _check_plan(staged, builder, splits, options)
    work = {
        split: _shards_of(builder, raw, staged, split, items, options)
        for split, items in splits.items()
    }
    everything = [shard for part in work.values() for shard in part]
    missing = [shard for shard in everything if not shards.is_done(shard)]
    with _swept(staged):
        run(missing, _telling(everything, tell))
    parts = [read_json(shard.part) for shard in everything]
    if not any(part["records"] for part in parts):
        raise DavError(_nothing(builder, raw, parts))
    if not any(part["targets"] for part in parts):
        _drop_duplicates(everything)
    _finish(builder, staged, work, options)
    shutil.rmtree(final, ignore_errors=True)  # one without a marker: it was never finished
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


def _plan(builder, raw):
    """The work items of every split, as a tuple. Raises DavError for a folder without any."""
    if raw is not None and not Path(raw).is_dir():
        raise ConfigError(f"the raw folder {raw} of {builder.name} does not exist")
    needs_raw = not builder.name.startswith("sample/")
    if needs_raw and raw is None:
        raise ConfigError(
            f"{builder.name} is made from its authors' files: say where they are (--raw=DIR; "
            "docs/data.md tells how to obtain them)"
        )
    found = builder.plan(Path(raw) if raw is not None else None)
    splits = {split: tuple(items) for split, items in found.items() if items}
    if not splits:
        raise DavError(f"the raw folder {raw} of {builder.name} holds nothing that it could read")
    return splits


def _check_plan(staged, builder, splits, options):
    """What a build was begun from must not change until it is finished."""
    digest = hashlib.sha256(repr(sorted(splits.items())).encode()).hexdigest()
    counts = {split: len(items) for split, items in splits.items()}
    plan = {"name": builder.name, "version": builder.version, "items": counts}
    plan |= {"sha256": digest, "options": _lasting(options)}
    path = staged / PLAN
    if not path.exists():
        write_json(path, plan)
        return
    begun = read_json(path)
    changed = [key for key in plan if plan[key] != begun.get(key)]
    if changed:
        what = {"sha256": "the raw folder's files", "items": "the raw folder's files"}
        names = sorted({what.get(key, key) for key in changed})
        raise DavError(
            f"{staged} was begun with other {' and '.join(names)}; restore them to continue, or "
            "delete it to begin anew"
        )


def _lasting(options):
    """The options that decide what is stored."""
    return {**asdict(options), "sky": bool(options.sky)}


def _shards_of(builder, raw, staged, split, items, options):
    size = builder.items_per_shard
    groups = [items[start : start + size] for start in range(0, len(items), size)]
    raw = Path(raw) if raw is not None else None
    return [
        shards.Shard(builder, raw, staged, split, index, len(groups), group, options)
        for index, group in enumerate(groups)
    ]


def _telling(everything, tell):
    """From counts of the shards at work to counts of the whole set."""
    total = sum(len(shard.items) for shard in everything)
    before = sum(len(shard.items) for shard in everything if shards.is_done(shard))
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


def _finish(builder, staged, work, options):
    """Report, TFDS's metadata, and the checksums that mark the set as finished."""
    parts = {split: [read_json(s.part) for s in group] for split, group in work.items()}
    report = {
        "name": builder.name,
        "options": _lasting(options),
        "splits": {
            split: {
                "items": sum(len(shard.items) for shard in work[split]),
                "records": sum(part["records"] for part in group),
                "skipped": [line for part in group for line in part["skipped"]],
                "duplicates": sum(len(part["duplicates"]) for part in group),
            }
            for split, group in parts.items()
        },
    }
    write_json(staged / REPORT, report)
    _write_metadata(builder, staged, parts)
    everything = [shard for group in work.values() for shard in group]
    sums = {shard.path.name: read_json(shard.part)["sha256"] for shard in everything}
    others = [staged / name for name in ("dataset_info.json", "features.json", REPORT, PLAN)]
    write_json(staged / MARKER, sums | {path.name: checksum(path) for path in others})


def _write_metadata(builder, staged, parts):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, file_adapters, naming

    from dav.data.examples import features

    name = builder.name.replace("/", "_")
    identity = dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version(builder.version), data_dir=str(staged), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=features(), disable_shuffling=True, description=builder.name
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[part["records"] for part in group],
            num_bytes=sum(part["bytes"] for part in group),
            filename_template=naming.ShardedFileTemplate(
                dataset_name=name, data_dir=str(staged), split=split, filetype_suffix="array_record"
            ),
        )
        for split, group in parts.items()
    ]
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(str(staged))


def damaged_files(folder):
    """The files of a finished set that are missing or differ from their checksums."""
    recorded = read_json(Path(folder) / MARKER)
    names = list(recorded)
    return [
        name
        for name, sha256 in zip(
            names, building.checksums([Path(folder) / n for n in names]), strict=True
        )
        if sha256 != recorded[name]
    ]


if __name__ == "__main__":
    from dav.prepare import main

    sys.exit(main(sys.argv))
