"""Label shards: files of pseudo-labels, one for one with image shards, made by many processes.

The label shards of a data set's split stand in LABELS/name/config/split/, each with its image
shard's file name, its record count and its order:

    SHARD                  the labels (labels.py)
    manifest/SHARD.json    what it holds, written last: a shard without it does not exist
    manifest.jsonl         those of all shards in one file, only there to be read quickly
    damaged/SHARD.json     an image shard that could not be read, and why
    work/                  claims and what is being written; gone at the end

Every file is written under a name of its own and renamed, so that any number of processes may write
at the same time and none appends to what another one has. A shard's line has

    shard, records, bytes, sha256, teacher
    failed        [{index, id, reason}] of records without a label
    statistics    of its maps
    outliers      [{index, id, kind, value}], those worth a look
    measured      what differs from run to run: seconds, devices, kind, modified_ns
"""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from dav.data.labels import decode_label
from dav.data.sources import Decoded, Records
from dav.errors import ConfigError, DavError, is_disk_full
from dav.files import checksum, if_there, read_json, read_lines
from dav.threads import in_threads

MERGED = "manifest.jsonl"


def work_folder(folder):
    """Where claims and unfinished files stand."""
    return Path(folder) / "work"


def commit(folder, name, records, line, *, me):
    """Puts a label shard in place, then its line, which it returns; `me` names this process.

    A shard that another process has finished meanwhile stays as it is: whoever is first counts.
    Raises ConfigError if it is another teacher's, OSError when the disk is full; nothing
    half-written is left then.
    """
    folder = Path(folder)
    temporary = work_folder(folder) / f"{name}.{me}.tmp"
    try:
        _write_records(temporary, records)
        line = line | {"bytes": temporary.stat().st_size, "sha256": checksum(temporary)}
        other = read_line(folder, name)
        if is_whole(folder, other, line["teacher"], line["records"]):
            return other
        refuse_other(folder, other, line["teacher"])
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    modified = {"modified_ns": (folder / name).stat().st_mtime_ns}
    line["measured"] = line.get("measured", {}) | modified
    _write_json(folder, f"manifest/{name}.json", line, me)
    if_there((folder / f"damaged/{name}.json").unlink)
    return line


def _write_records(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb"):  # tells a full disk or a forbidden folder as what it is
        pass
    try:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        written = ArrayRecordReader(str(path)).num_records()
    except (RuntimeError, ValueError) as error:
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise DavError(f"{path} cannot be written ({str(error).splitlines()[0]})") from error
    if written != len(records):
        raise DavError(f"{path} was not written whole: it holds {written} of {len(records)} labels")
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _write_json(folder, name, value, me):
    """A JSON file, whole or not at all, whoever else writes it at the same time."""
    _write_text(folder, name, json.dumps(value, ensure_ascii=False, indent=1) + "\n", me)


def _write_text(folder, name, text, me):
    path = folder / name
    temporary = work_folder(folder) / f"{path.name}.{me}.tmp"
    for needed in (path.parent, temporary.parent):
        needed.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def list_damaged(folder, name, reason, *, me):
    """Writes down that an image shard cannot be read."""
    _write_json(Path(folder), f"damaged/{name}.json", {"shard": name, "reason": reason}, me)


def damaged_shards(folder):
    """{shard: reason} of the image shards that could not be read."""
    names = sorted(path.stem for path in (Path(folder) / "damaged").glob("*.json"))
    found = {name: damage_of(folder, name) for name in names}
    return {name: reason for name, reason in found.items() if reason}


def damage_of(folder, name, since=0.0):
    """Why an image shard could not be read, if that was listed at `since` (seconds of the file
    system's time) or later; else None."""
    path = Path(folder) / "damaged" / f"{name}.json"
    listed = if_there(path.stat)
    if not listed or listed.st_mtime < since:
        return None
    return (if_there(lambda: read_json(path)) or {}).get("reason")


def read_line(folder, name):
    """One shard's line, or None."""
    path = Path(folder) / "manifest" / f"{name}.json"
    try:
        return json.loads(if_there(lambda: path.read_text("utf-8")) or "null")
    except ValueError:
        return None  # not written by dav, which renames whole files: then it is made again


def refuse_other(folder, line, origin):
    """Raises ConfigError if the labels of a line were made by other means than `origin`."""
    if line and line["teacher"] != origin:
        raise ConfigError(
            f"{folder} holds labels of another teacher or of another look at the images "
            f"({line['teacher']}) than this config's ({origin}); choose another "
            "--config.labels_dir, or delete that folder"
        )


def is_whole(folder, line, origin, records):
    """Whether the shard of a line is there, by this teacher, for so many records, as it was
    written. Its checksum is read only if the file was touched since."""
    if not line or (line["teacher"], line["records"]) != (origin, records):
        return False
    path = Path(folder) / line["shard"]
    found = if_there(path.stat)
    if not found:
        return False
    as_written = _is_untouched(found, line) or checksum(path) == line["sha256"]
    return _has_size(found, line) and as_written


def _has_size(found, line):
    return found.st_size == line["bytes"]


def _is_untouched(found, line):
    return found.st_mtime_ns == line["measured"]["modified_ns"]


def finished_shards(folder, origin, *, lines=None, verify=False):
    """Lines by shard, of the shards that are there as they were written, by teacher `origin`;
    `lines` are those of read_manifest, if it has been read.

    A file of another size is not; one that was touched since has its checksum read, and with
    `verify` every one has, and the lines of those that are damaged go. Damage that leaves size and
    time as they were is found otherwise when the label is read: each has a checksum of its own.
    """
    folder = Path(folder)
    lines = read_manifest(folder) if lines is None else lines
    lines = {n: line for n, line in lines.items() if line["teacher"] == origin}
    there = _stats(folder)
    lines = {n: line for n, line in lines.items() if n in there and _has_size(there[n], line)}
    doubtful = [n for n, line in lines.items() if verify or not _is_untouched(there[n], line)]

    def is_damaged(name):
        damaged = checksum(folder / name) != lines[name]["sha256"]
        if damaged and verify:
            forget(folder, lines[name])
        return damaged

    with in_threads(is_damaged, doubtful) as checking:
        wrong = {name for name, found in checking if found.result()}
    return {name: line for name, line in lines.items() if name not in wrong}


def read_manifest(folder):
    """All lines by shard. Those that manifest.jsonl has are not read one by one."""
    folder = Path(folder)
    merged = {(line["shard"], line.pop("line_ns")): line for line in _merged_lines(folder)}
    lines = {}
    for file_name, found in _stats(folder / "manifest").items():
        name = file_name.removesuffix(".json")
        lines[name] = merged.get((name, found.st_mtime_ns))
    unknown = [name for name, line in lines.items() if line is None]
    with in_threads(lambda name: read_line(folder, name), unknown) as reading:
        lines |= {name: line.result() for name, line in reading}
    return {name: lines[name] for name in sorted(lines) if lines[name]}


def _merged_lines(folder):
    try:
        return read_lines(folder / MERGED)
    except DavError:
        return []  # it can be made again


def finished_since(folder, since, origin, missing):
    """Those of the image shards `missing` ({path: records}) whose lines were written at `since` or
    later, in seconds of the file system's time, by whomever."""
    by_name = {f"{path.name}.json": path for path in list(missing)}
    for file_name, found in _stats(Path(folder) / "manifest", by_name).items():
        path = by_name[file_name]
        records = missing.get(path)
        if records is None or found.st_mtime < since:
            continue
        if is_whole(folder, read_line(folder, path.name), origin, records):
            yield path


def forget(folder, line):
    """From now on the shard of a line is not there, unless it has been made anew since the line was
    read and has another."""
    name = line["shard"]
    if read_line(folder, name) == line:
        if_there((Path(folder) / "manifest" / f"{name}.json").unlink)


def merge(folder, *, me):
    """Writes manifest.jsonl anew if lines are not in it. A process that merges at the same time
    loses nothing: what is missing there is read from its own file."""
    folder = Path(folder)
    if is_merged(folder):
        return
    there = _line_times(folder)
    found = read_manifest(folder).items()
    lines = [line | {"line_ns": there[name]} for name, line in found if name in there]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    _write_text(folder, MERGED, text, me)


def is_merged(folder):
    """Whether manifest.jsonl has all lines, as they are now."""
    known = {(line["shard"], line["line_ns"]) for line in _merged_lines(Path(folder))}
    return known == set(_line_times(Path(folder)).items())


def _line_times(folder):
    """{shard: when its line was written, in ns}."""
    found = _stats(folder / "manifest")
    return {name.removesuffix(".json"): stat.st_mtime_ns for name, stat in found.items()}


def _stats(folder, names=None):
    """{name: its stat} of the files of a folder, of all or of `names`, by one listing."""

    def listing():
        with os.scandir(folder) as entries:
            shown = (e for e in entries if e.name[0] != "." and (names is None or e.name in names))
            return {e.name: if_there(e.stat) for e in shown if e.is_file()}

    return {name: stat for name, stat in (if_there(listing) or {}).items() if stat}


def read_record(folder, name, index):
    """One encoded label."""
    return ArrayRecordReader(str(Path(folder) / name)).read([index])[0]


def open_labels(folder, counts):
    """The decoded labels of the shards `counts` ({file name: records}), one after the other, by
    index. No file is opened before it is read."""
    from grain.sources import ArrayRecordDataSource

    parts = [Part(str(Path(folder) / name), 0, n, n) for name, n in counts.items() if n]
    cure = "--job=label with --config.label_verify=True finds damaged shards and makes them again"
    return Decoded(
        Records(ArrayRecordDataSource(parts), f"the labels in {folder}", cure), decode_label
    )


@dataclass(frozen=True)
class Part:
    """A file as ArrayRecord's data source wants to have it told."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int
