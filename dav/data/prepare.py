"""Builds data sets and finds the built ones.

A data set is named `name` or `name/config`, and stands in ROOT/name/config/version/ as ArrayRecord
shards. checksums.json beside them is written last: a folder without it is not finished.
"""

import contextlib
import io
import shutil
from pathlib import Path

from dav.errors import ConfigError
from dav.files import checksum, read_json, write_json

MARKER = "checksums.json"


def find(root, name):
    """The folder of the newest finished version of data set `name` below root, or None."""
    folder = Path(root) / name
    versions = [path.parent for path in folder.glob(f"*/{MARKER}")]
    return max(versions, key=lambda path: path.name, default=None)


def prepare(root, name, *, shards=None):
    """Builds data set `name` below root, or checks it where it already stands.

    Does nothing to a finished set whose shards have the recorded sizes and checksums; builds a
    damaged or missing one anew. Returns its folder.
    """
    folder = find(root, name)
    if folder:
        damaged = damaged_shards(folder)
        if not damaged:
            return folder
        shutil.rmtree(folder)
    import tensorflow_datasets as tfds

    builder = make_builder(root, name)
    _remove_unfinished(Path(builder.data_dir).parent)
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # the engine prints what it does; we report
        builder.download_and_prepare(download_config=config, file_format="array_record")
    write_checksums(Path(builder.data_dir))
    return Path(builder.data_dir)


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


def _remove_unfinished(folder):
    for path in folder.glob("*.incomplete*"):
        shutil.rmtree(path, ignore_errors=True)
