import contextlib
import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from dav import files
from dav.data import label_shards, labels, sources
from dav.errors import ConfigError, DavError

TEACHER = "teacher A"


def records(count, start=0):
    maps = (np.full((2, 2), start + i, np.float32) for i in range(count))
    return [labels.encode_label(f"id{start + i}", one) for i, one in enumerate(maps)]


def commit(folder, name, count, *, start=0, me="me", teacher=TEACHER):
    line = {"shard": name, "records": count, "teacher": teacher, "failed": []}
    return label_shards.commit(folder, name, records(count, start), line, me=me)


@pytest.fixture
def two(tmp_path):
    """A folder of two finished shards."""
    commit(tmp_path, "b-00000", 3)
    commit(tmp_path, "b-00001", 2, start=3)
    return tmp_path


def names(folder, **options):
    return set(label_shards.finished_shards(folder, TEACHER, **options))


def test_shards_read_back_in_order_and_only_finished_ones_count(two):
    opened = label_shards.open_labels(two, {"b-00000": 3, "b-00001": 2})
    assert [opened[i]["id"] for i in range(len(opened))] == [f"id{i}" for i in range(5)]
    assert labels.decode_label(label_shards.read_record(two, "b-00001", 1))["id"] == "id4"
    (two / "b-00002").write_bytes(b"half")  # no line: does not exist
    assert names(two) == {"b-00000", "b-00001"}
    assert not label_shards.finished_shards(two, "teacher B")
    assert list(label_shards.work_folder(two).iterdir()) == []


def test_a_shard_of_another_size_is_not_finished(two):
    content = (two / "b-00000").read_bytes()
    (two / "b-00000").write_bytes(content[:-1])
    assert names(two) == {"b-00001"}
    (two / "b-00001").unlink()
    assert names(two) == set()


def damage(path):
    """Changes a byte of a label's values; returns how the file was."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[content.index(b"parts") + 20] ^= 1
    path.write_bytes(content)
    return before


def test_a_changed_byte_is_found_by_the_files_time_and_then_by_its_checksum(two):
    before = damage(two / "b-00000")
    assert names(two) == {"b-00001"}
    os.utime(two / "b-00000", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(two) == {"b-00000", "b-00001"}
    assert names(two, verify=True) == {"b-00001"}
    assert names(two) == {"b-00001"}, "what was found damaged is not taken for finished again"
    opened = label_shards.open_labels(two, {"b-00000": 3})
    with pytest.raises(DavError, match="label_verify=True finds damaged shards"):
        [opened[index] for index in range(3)]


def test_a_copy_is_finished_too(two, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy") / "labels"
    shutil.copytree(two, copy, copy_function=shutil.copyfile)
    assert names(copy) == {"b-00000", "b-00001"}


def test_who_comes_second_changes_nothing(two):
    before = {path: path.stat().st_mtime_ns for path in two.rglob("*-0*")}
    line = commit(two, "b-00000", 3, me="another")
    assert {path: path.stat().st_mtime_ns for path in two.rglob("*-0*")} == before
    assert line == label_shards.read_line(two, "b-00000")


def test_another_teachers_shard_is_not_replaced_but_where_it_is_forgotten(two):
    before = (two / "b-00000").read_bytes()
    with pytest.raises(ConfigError, match="teacher A.*teacher B.*another --config.labels_dir"):
        commit(two, "b-00000", 3, start=7, teacher="teacher B")
    assert (two / "b-00000").read_bytes() == before and names(two) == {"b-00000", "b-00001"}
    assert list(label_shards.work_folder(two).iterdir()) == []
    label_shards.forget(two, label_shards.read_line(two, "b-00000"))
    commit(two, "b-00000", 3, start=7, teacher="teacher B")
    assert names(two) == {"b-00001"}
    assert set(label_shards.finished_shards(two, "teacher B")) == {"b-00000"}
    assert labels.decode_label(label_shards.read_record(two, "b-00000", 0))["id"] == "id7"


def test_equal_labels_give_equal_files(tmp_path):
    for folder in ("one", "two"):
        commit(tmp_path / folder, "b-00000", 3, me=folder)
    assert (tmp_path / "one/b-00000").read_bytes() == (tmp_path / "two/b-00000").read_bytes()


def test_merged_lines_are_not_read_again_and_newer_ones_are(two, monkeypatch):
    label_shards.merge(two, me="me")
    commit(two, "b-00001", 4, start=9)
    commit(two, "b-00002", 1)
    read, found = label_shards.read_line, []
    monkeypatch.setattr(label_shards, "read_line", lambda f, n: found.append(n) or read(f, n))
    lines = label_shards.read_manifest(two)
    assert sorted(found) == ["b-00001", "b-00002"]
    assert {name: line["records"] for name, line in lines.items()} == {
        "b-00000": 3,
        "b-00001": 4,
        "b-00002": 1,
    }
    label_shards.forget(two, lines["b-00000"])
    assert names(two) == {"b-00001", "b-00002"}


def test_a_check_forgets_nothing_that_is_made_anew_meanwhile(two, monkeypatch):
    before = damage(two / "b-00000")
    os.utime(two / "b-00000", ns=(before.st_atime_ns, before.st_mtime_ns))
    label_shards.merge(two, me="me")
    read = label_shards.checksum

    def read_slowly(path):
        found = read(path)
        if path.name == "b-00000" and path.parent == two:  # another process repairs it
            (two / "b-00000").unlink()
            commit(two, "b-00000", 3, start=7, me="another")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(label_shards, "checksum", read_slowly)
        assert names(two, verify=True) == {"b-00001"}
    assert names(two, verify=True) == {"b-00000", "b-00001"}


def test_a_damaged_merged_manifest_costs_only_time(two):
    label_shards.merge(two, me="me")
    merged = two / label_shards.MERGED
    merged.write_text(merged.read_text()[:50] + "\n" + "{]\n")
    assert names(two) == {"b-00000", "b-00001"}
    label_shards.merge(two, me="me")
    assert [json.loads(line)["shard"] for line in merged.read_text().splitlines()] == [
        "b-00000",
        "b-00001",
    ]
    before = merged.stat().st_mtime_ns
    label_shards.merge(two, me="me")
    assert merged.stat().st_mtime_ns == before


class Vanishing:
    """A folder's entry that is removed before it is looked at."""

    name = "b-00009.json"

    def is_file(self):
        return True

    def stat(self):
        raise FileNotFoundError(errno.ENOENT, "gone", self.name)


def test_a_line_that_goes_during_a_listing_hides_no_other(two, monkeypatch):
    scan = os.scandir

    @contextlib.contextmanager
    def scan_late(path):
        with scan(path) as entries:
            yield [Vanishing(), *entries]

    monkeypatch.setattr(os, "scandir", scan_late)
    assert names(two) == {"b-00000", "b-00001"}


def test_a_line_that_comes_during_a_merge_is_left_for_the_next(two, monkeypatch):
    read = label_shards.read_manifest

    def read_late(folder):
        commit(two, "b-00002", 1, me="another")
        return read(folder)

    with monkeypatch.context() as patched:
        patched.setattr(label_shards, "read_manifest", read_late)
        label_shards.merge(two, me="me")
    lines = (two / label_shards.MERGED).read_text().splitlines()
    assert [json.loads(line)["shard"] for line in lines] == ["b-00000", "b-00001"]
    assert names(two) == {"b-00000", "b-00001", "b-00002"} and not label_shards.is_merged(two)


def stale(times, call):
    """`call`, that fails so often first, as for a file of NFS that another host has replaced."""
    left = [times]

    def fail(*args, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return call(*args, **options)

    return fail


def test_what_another_host_replaces_is_read_again_and_what_it_removes_is_gone(two, monkeypatch):
    line = label_shards.read_line(two, "b-00000")
    for times in (1, 9):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_text", stale(times, Path.read_text))
            assert label_shards.read_line(two, "b-00000") == (line if times == 1 else None)
    label_shards.merge(two, me="me")
    for place, name in ((Path, "read_bytes"), (os, "scandir"), (Path, "stat"), (files, "open")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, stale(1, getattr(place, name, open)), raising=False)
            assert names(two, verify=True) == {"b-00000", "b-00001"}, name
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stale(9, Path.stat))
        assert not label_shards.is_whole(two, line, TEACHER, 3)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stale(1, Path.unlink))
        label_shards.forget(two, line)
    assert names(two) == {"b-00001"}


def test_what_is_finished_since_a_time(two):
    missing = {two / "images" / "b-00000": 3, two / "images" / "b-00001": 9}
    since = (two / "manifest" / "b-00000.json").stat().st_mtime
    found = label_shards.finished_since(two, since, TEACHER, missing)
    assert [path.name for path in found] == ["b-00000"]  # the other has another number of records
    assert not list(label_shards.finished_since(two, since + 9, TEACHER, missing))


def test_only_lines_of_missing_shards_are_looked_at(two, monkeypatch):
    """60,000 shards on one file server, 64 processes that ask every minute."""
    scan, looked = os.scandir, []

    class Watched:
        def __init__(self, entry):
            self.name, self.is_file, self._entry = entry.name, entry.is_file, entry

        def stat(self):
            looked.append(self.name)
            return self._entry.stat()

    @contextlib.contextmanager
    def watch(path):
        with scan(path) as entries:
            yield [Watched(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", watch)
    missing = {two / "images" / "b-00001": 2, two / "images" / "b-00002": 2}
    found = label_shards.finished_since(two, 0.0, TEACHER, missing)
    assert [path.name for path in found] == ["b-00001"] and looked == ["b-00001.json"]


def test_a_shard_listed_as_damaged_is_so_until_it_is_labelled(tmp_path):
    label_shards.list_damaged(tmp_path, "b-00000", "it is torn", me="me")
    assert label_shards.damaged_shards(tmp_path) == {"b-00000": "it is torn"}
    listed = (tmp_path / "damaged" / "b-00000.json").stat().st_mtime
    assert label_shards.damage_of(tmp_path, "b-00000", listed) == "it is torn"
    assert not label_shards.damage_of(tmp_path, "b-00000", listed + 1)
    assert not label_shards.damage_of(tmp_path, "b-00001", listed)
    commit(tmp_path, "b-00000", 3)
    assert not label_shards.damaged_shards(tmp_path)


def test_a_shard_may_be_labelled_while_the_damaged_ones_are_listed(tmp_path, monkeypatch):
    for name in ("b-00000", "b-00001", "b-00002"):
        label_shards.list_damaged(tmp_path, name, "it is torn", me="me")
    read, torn = label_shards.read_json, {"b-00001": "it is torn", "b-00002": "it is torn"}

    def read_late(path):
        if path.name.startswith("b-00000"):
            commit(tmp_path, "b-00000", 3, me="another")
        return read(path)

    monkeypatch.setattr(label_shards, "read_json", read_late)
    assert label_shards.damaged_shards(tmp_path) == torn
    label_shards.list_damaged(tmp_path, "b-00000", "it is torn", me="me")
    (tmp_path / "manifest" / "b-00000.json").unlink()
    assert not label_shards.damage_of(tmp_path, "b-00000", 0.0)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        commit(tmp_path, "b-00000", 3)
        (tmp_path / "filler").write_bytes(bytes(128 * 1024))
        with pytest.raises(OSError, match="No space left"):
            commit(tmp_path, "b-00001", 2)
        assert names(tmp_path) == {"b-00000"}
        assert list(label_shards.work_folder(tmp_path).iterdir()) == []
        (tmp_path / "filler").unlink()
        commit(tmp_path, "b-00001", 2)
        assert names(tmp_path) == {"b-00000", "b-00001"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_labels_of_other_images_are_refused():
    images, wrong = [{"id": "a"}], [{"id": "b", "disparity": 1}]
    with pytest.raises(DavError, match="'b'.*'a'"):
        sources.WithLabels(images, wrong)[0]


def test_an_image_without_a_label_gives_way_to_the_next_one_with_one():
    images = [{"id": str(number)} for number in range(4)]
    found = [{"id": str(number)} | {"disparity": number} for number in range(4)]
    for without in (1, 3):
        found[without] = {"id": str(without), "reason": "it is torn"}
    joined = sources.WithLabels(images, found)
    assert [joined[index]["disparity"] for index in range(4)] == [0, 2, 2, 0]
    with pytest.raises(DavError, match="none of the 1 images"):
        sources.WithLabels(images[1:2], found[1:2])[0]


def test_shards_are_counted_as_the_data_set_says(sample_root):
    counts = sources.shard_counts(sample_root, "sample/photos", "train")
    assert counts == {
        path: ArrayRecordReader(str(path)).num_records()
        for path in sources.split_shards(sample_root, "sample/photos", "train")
    }


def test_a_shard_that_is_not_whole_is_named(sample_root, tmp_path):
    features = sources.read_features(sample_root, "sample/photos", "train")
    path, count = next(iter(sources.shard_counts(sample_root, "sample/photos", "train").items()))
    assert sources.open_shard(path, count, features)[0]["id"]
    with pytest.raises(DavError, match="has 13 records, not 14"):
        sources.open_shard(path, 14, features)
    with pytest.raises(DavError, match="missing.*No such file"):
        sources.open_shard(tmp_path / "missing", 3, features)
    (tmp_path / "half").write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DavError, match="half"):
        sources.open_shard(tmp_path / "half", count, features)
