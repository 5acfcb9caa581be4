"""Preparing that dies between any two of its steps, and sets whose files were damaged since."""

import functools
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from dav import prepare as job
from dav.data import building, prepare, shards, sources, storing
from dav.data.decoding import decode_image
from dav.data.examples import decode_example
from dav.data.frames import DEPTH_M, Target
from dav.errors import ConfigError, DavError
from dav.runtime.telemetry import Progress

OPTIONS = shards.Options(short_side_px=32)


@pytest.fixture
def catalogued(monkeypatch):
    tiny.install(monkeypatch, tiny.builder("tiny"), tiny.builder("tiny/depth", labelled=True))


@pytest.fixture
def raw(tmp_path):
    """Ten images, of which two are a copy of another."""
    raw = tiny.write_pictures(tmp_path / "raw", 10)
    for copy, original in ((5, 0), (9, 8)):
        (raw / f"{copy:04d}.jpg").write_bytes((raw / f"{original:04d}.jpg").read_bytes())
    return raw


def build(root, raw, name="tiny", **options):
    return prepare.prepare(root, name, raw=raw, **{"options": OPTIONS} | options)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def flip(path, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0x01
    path.write_bytes(content)


class Killed(BaseException):
    pass


def killed_at(step, monkeypatch, work):
    """Runs work() until it renames, syncs or removes for the `step`th time; whether it came to
    that. From then on nothing can be done any more, as if the process were dead."""
    left = step

    def deadly(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for module, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (shutil, "rmtree")):
            patched.setattr(module, name, deadly(getattr(module, name)))
        try:
            work()
        except Killed:
            return True
    return False


def test_killed_between_any_two_steps_it_ends_with_the_same_bytes(
    catalogued, tmp_path, raw, monkeypatch
):
    expected = contents(build(tmp_path / "whole", raw))
    for step in range(200):
        root = tmp_path / str(step)
        if not killed_at(step, monkeypatch, lambda root=root: build(root, raw)):
            break
        assert contents(build(root, raw)) == expected
        assert not list(root.rglob("*.tmp"))
    assert step > 20


def test_killed_in_a_repair_it_keeps_what_is_whole(catalogued, tmp_path, raw, monkeypatch):
    expected = contents(build(tmp_path / "whole", raw))
    for step in range(200):
        root = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole", root)
        flip(sorted((root / "tiny/1.0.0").glob("*.array_record-*"))[1])
        if not killed_at(step, monkeypatch, lambda root=root: build(root, raw)):
            break
        built = []

        def note(work, tell, built=built):
            built.extend(shard.index for shard in work)
            building.in_process(work, tell)

        assert contents(build(root, raw, run=note)) == expected
        assert set(built) <= {1}
    assert step > 10


@pytest.mark.parametrize(
    "name",
    [
        *("checksums.json", "plan.json", "report.json", "features.json"),
        *("parts/train-00001.json", "parts/train-00001.digests"),
    ],
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_whatever_is_damaged_is_made_again(catalogued, tmp_path, raw, name, damage):
    folder = build(tmp_path / "out", raw)
    expected = contents(folder)
    flip(sorted(folder.glob("*.array_record-*"))[0])  # or nobody looks at the parts
    if damage == "flipped":
        flip(folder / name)
    elif damage == "cut":
        os.truncate(folder / name, 11)
    else:
        (folder / name).unlink()
    assert contents(build(tmp_path / "out", raw)) == expected


def test_damage_without_raw_files_is_named_and_the_rest_stays_in_use(catalogued, tmp_path, raw):
    folder = build(tmp_path / "out", raw)
    shard = sorted(folder.glob("*.array_record-*"))[1]
    flip(shard)
    before = contents(folder)
    with pytest.raises(ConfigError, match=rf"is damaged \({shard.name}\).*--raw=DIR"):
        build(tmp_path / "out", None)
    assert contents(folder) == before and prepare.find(tmp_path / "out", "tiny") == folder


def test_a_file_that_the_disk_does_not_give_back_is_damaged(catalogued, tmp_path, raw, monkeypatch):
    folder = build(tmp_path / "out", raw)
    victim = sorted(folder.glob("*.array_record-*"))[1]

    def checksum(path, real=building.checksum):
        if path == victim:
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(building, "checksum", checksum)
    assert prepare.damaged_files(folder) == [victim.name]


def test_a_finished_set_is_checked_by_many_and_needs_no_right_to_write(
    catalogued, tmp_path, raw, monkeypatch
):
    folder = build(tmp_path / "out", raw)
    (tmp_path / "out/tiny/.lock").unlink()
    with prepare._only_process(tmp_path / "out/tiny", "tiny"):
        assert build(tmp_path / "out", raw) == folder
    (tmp_path / "out/tiny/.lock").unlink()
    assert build(tmp_path / "out", raw) == folder
    assert not (tmp_path / "out/tiny/.lock").exists()


def test_a_set_that_dav_did_not_make_is_never_removed(catalogued, tmp_path, raw):
    theirs = tmp_path / "out/tiny/1.0.0"
    theirs.mkdir(parents=True)
    (theirs / "dataset_info.json").write_text("{}")
    with pytest.raises(DavError, match=r"tiny/1\.0\.0 is not a set that dav has finished"):
        build(tmp_path / "out", raw)
    assert (theirs / "dataset_info.json").exists()


def test_damage_in_an_older_version_leads_to_the_present_one(
    catalogued, tmp_path, raw, monkeypatch
):
    old = build(tmp_path / "out", raw)
    flip(sorted(old.glob("*.array_record-*"))[1])
    tiny.install(monkeypatch, replace(tiny.builder("tiny"), version="1.1.0"))
    new = build(tmp_path / "out", raw)
    assert new.name == "1.1.0" and old.exists() and not prepare.damaged_files(new)


def test_other_options_than_a_finished_set_was_made_with_are_refused(catalogued, tmp_path, raw):
    folder = build(tmp_path / "out", raw)
    with pytest.raises(ConfigError, match=r"begun with other options \(short_side_px=32\)"):
        build(tmp_path / "out", raw, options=replace(OPTIONS, short_side_px=64))
    expected = contents(folder)
    assert build(tmp_path / "out", raw, options=None) == folder
    flip(sorted(folder.glob("*.array_record-*"))[0])
    assert contents(build(tmp_path / "out", raw, options=None)) == expected


def test_the_command_asks_for_options_only_where_they_are_given(tmp_path):
    plain = ["prepare", "sample/tum", f"--out={tmp_path}"]
    assert job.parse(plain)["options"] is None
    assert job.parse([*plain, "--quality=80"])["options"] == shards.Options(quality=80)


def test_what_is_broken_may_be_left_out_after_all(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 10, labelled=True)
    (raw / "0009.npy").unlink()
    with pytest.raises(DavError, match=r"0009\.npy"):
        build(tmp_path / "out", raw, "tiny/depth")
    options = replace(OPTIONS, skip_broken=True)
    whole = contents(build(tmp_path / "whole", raw, "tiny/depth", options=options))
    assert contents(build(tmp_path / "out", raw, "tiny/depth", options=options)) == whole


def png_of(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def test_what_is_stored_is_read_as_it_was_checked_whatever_its_tags_say():
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = 6
    Image.fromarray(tiny.picture(1)).save(file, "JPEG", exif=exif)
    jpeg = bytearray(file.getvalue())
    jpeg[jpeg.index(b"Exif") + 19] = 0  # a tag of no type: Pillow drops it, OpenCV turns
    stored, size = storing.store_image(bytes(jpeg), keep=False, short_side_px=0, quality=95)
    assert decode_image(stored, "a").shape == (*size, 3)


def test_a_png_whose_checksums_are_wrong_is_not_whole():
    png = bytearray(png_of(tiny.picture(1)))
    png[len(png) // 2] ^= 1
    with pytest.raises(DavError, match="damaged"):
        storing.store_image(bytes(png), keep=True, short_side_px=0, quality=95)


@pytest.mark.parametrize(
    "run", [building.in_process, functools.partial(building.in_processes, processes=2)]
)
def test_items_are_told_as_they_are_done_not_by_the_shard(catalogued, tmp_path, raw, run):
    told = []
    build(tmp_path / "out", raw, run=run, tell=lambda *counts: told.append(counts))
    assert told[0] == (0, 10, 0) and told[-1] == (10, 10, 10)
    if run is building.in_process:
        assert {items for items, *_ in told} == set(range(11))


def test_names_that_are_no_text_are_kept_readable(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 3)
    for number, name in enumerate((b"\xff\xfe.jpg", b"a\nb.jpg")):
        os.rename(raw / f"{number:04d}.jpg", os.path.join(os.fsencode(raw), name))
    (raw / os.fsdecode(b"broken\xff.jpg")).write_bytes(b"")
    folder = build(tmp_path / "out", raw)
    records = sources.open_split(tmp_path / "out", "tiny", "train")
    names = {decode_example(record)["id"] for record in records}
    assert names == {"\\udcff\\udcfe", "a\nb", "0002"}
    report = json.loads((folder / "report.json").read_text())
    assert report["splits"]["train"]["skipped"][0]["id"] == "broken\\udcff"
    with pytest.raises(ConfigError, match="plain text"):
        build(tmp_path / os.fsdecode(b"out\xff"), raw)


@pytest.mark.parametrize("name", ["/etc/a", "../a", "b/../../a"])
def test_no_name_leads_out_of_the_folder_of_sky_masks(tmp_path, name):
    target = Target(DEPTH_M, np.ones((2, 2), np.float32), np.ones((2, 2), bool))
    with pytest.raises(DavError, match="leads out"):
        shards._with_sky(target, str(tmp_path / "sky"), name)


def test_a_webp_stays_only_if_it_is_whole():
    file = io.BytesIO()
    Image.fromarray(tiny.picture(1)).save(file, "WEBP")
    options = {"keep": False, "short_side_px": 0, "quality": 95}
    assert storing.store_image(file.getvalue(), **options) == (file.getvalue(), (40, 60))
    for cut in (20, 100, len(file.getvalue()) - 30):
        with pytest.raises(DavError, match=r"truncated|damaged|known format"):
            storing.store_image(file.getvalue()[:cut], **options)


def test_what_a_library_thinks_of_an_image_is_not_shown(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    png = png_of(tiny.picture(1))
    assert storing.store_image(png, keep=True, short_side_px=0, quality=95) == (png, (40, 60))
    assert not recwarn.list


@pytest.mark.parametrize("items", [3, 40_000])
def test_a_log_file_gets_lines_now_and_then(capsys, items):
    with Progress("tiny", 0) as progress:
        tell = job._teller(progress)
        for done in range(items + 1):
            tell(done, items, done)
    assert len(capsys.readouterr().out.splitlines()) in ({3, 4} if items == 3 else {100, 101})
