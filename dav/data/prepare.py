"""Builds data sets and finds the built ones.

A data set is named `name` or `name/config`, and stands in ROOT/name/config/version/ as ArrayRecord
shards. Of those that dav builds, checksums.json is written last: a folder without it is not
finished. Data sets built elsewhere need none; dav reads them and never touches them.
"""

import contextlib
import io
import shutil
from pathlib import Path

from dav.errors import ConfigError
from dav.files import checksum, hold, read_json, write_json

MARKER = "checksums.json"


def find(root, name):
    """The folder of the newest finished version of data set `name` below root, or None."""
    marker = MARKER if can_build(name) else "dataset_info.json"
    versions = [path.parent for path in (Path(root) / name).glob(f"*/{marker}")]
    return max(versions, key=_version, default=None)


def _version(folder):
    """1.10.0 comes after 1.9.0."""
    return [int(part) if part.isdigit() else -1 for part in folder.name.split(".")]


def prepare(root, name, *, shards=None):
    """Builds data set `name` below root, or checks it where it already stands.

    Does nothing to a finished set whose shards have the recorded checksums, nor to one that was
    built elsewhere; builds a damaged, unfinished or missing one anew. Returns its folder.
    """
    folder = find(root, name)
    if folder and (not can_build(name) or not damaged_shards(folder)):
        return folder
    with _only_process(Path(root)):
        return _build(root, name, shards)


@contextlib.contextmanager
def _only_process(root):
    """Two processes must not build below one root: each would sweep up the other's files."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "a") as lock:
        hold(lock, f"another process is preparing data in {root}; wait for it")
        yield


def _build(root, name, shards):
    import tensorflow_datasets as tfds

    builder = make_builder(root, name)
    folder = Path(builder.data_dir)
    (folder / MARKER).unlink(missing_ok=True)  # first: from here on it is not finished
    for unfinished in (folder, *folder.parent.glob("*.incomplete*")):
        shutil.rmtree(unfinished, ignore_errors=True)
    builder = make_builder(root, name)  # the first one may have read what was there
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # the engine prints what it does; we report
        builder.download_and_prepare(download_config=config, file_format="array_record")
    write_checksums(folder)
    return folder


def builders():
    """The TFDS builders that dav has, by data set."""
    from dav.data.builders.sample import Sample

    return {"sample": Sample}


def can_build(name):
    """Whether dav has a builder for data set `name`."""
    dataset, _, config = name.partition("/")
    return dataset in builders() and config in builders()[dataset].builder_configs


def make_builder(root, name):
    """The TFDS builder of data set `name`."""
    if not can_build(name):
        known = [f"{dataset}/{c}" for dataset, b in builders().items() for c in b.builder_configs]
        raise ConfigError(f"dav cannot build data set {name!r}; it can: {', '.join(known)}")
    dataset, _, config = name.partition("/")
    return builders()[dataset](config=config, data_dir=str(root))


def damaged_shards(folder):
    """The files of a finished set that are missing or differ from their checksums."""
    recorded = read_json(Path(folder) / MARKER)
    return [name for name, sha256 in recorded.items() if checksum(Path(folder) / name) != sha256]


def write_checksums(folder):
    """Marks a data set as finished."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MARKER)
    write_json(folder / MARKER, {name: checksum(folder / name) for name in names})
