import functools
import json
import multiprocessing
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
from PIL import Image

from dav.data import building, prepare, shards, sources
from dav.data.examples import decode_example, decode_metric_example
from dav.errors import ConfigError, DavError

OPTIONS = shards.Options(short_side_px=32)


@pytest.fixture
def catalogued(monkeypatch):
    tiny.install(monkeypatch, tiny.builder("tiny"), tiny.builder("tiny/depth", labelled=True))


def build(root, raw, name="tiny", **options):
    return prepare.prepare(root, name, raw=raw, **{"options": OPTIONS} | options)


def examples(root, name="tiny", decode=decode_example):
    return list(sources.Decoded(sources.open_split(root, name, "train"), decode))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def report(folder):
    return json.loads((folder / "report.json").read_text())["splits"]["train"]


def test_every_image_is_stored_once_in_order_no_larger_than_asked(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 10)
    told = []
    folder = build(tmp_path / "out", raw, tell=lambda *counts: told.append(counts))
    stored = examples(tmp_path / "out")
    assert [e["id"] for e in stored] == [f"{n:04d}" for n in range(10)]
    assert {e["image"].shape for e in stored} == {(32, 48, 3)}
    assert len(list(folder.glob("*.array_record-*-of-00003"))) == 3
    assert told[0] == (0, 10, 0) and told[-1] == (10, 10, 10)
    for number, example in enumerate(stored):
        small = cv2.resize(tiny.picture(number), (48, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(example["image"] - small[..., ::-1].astype(float)).mean() < 4


def test_small_jpegs_stay_as_they_are(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 2)
    build(tmp_path / "out", raw, options=shards.Options(short_side_px=40))
    record = sources.open_split(tmp_path / "out", "tiny", "train")[1]
    assert record["image"] == (raw / "0001.jpg").read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_its_tag_is_gone(catalogued, tmp_path, orientation):
    raw = tmp_path / "raw"
    raw.mkdir()
    exif = Image.Exif()
    exif[274] = orientation
    upright = tiny.picture(5, (30, 60))[..., ::-1]
    undo = {1: 0, 2: 1, 3: 3, 4: 2, 5: 4, 6: 7, 7: 5, 8: 6}  # what makes the viewer turn it back
    stored = np.asarray(upright)
    stored = {
        0: lambda a: a,
        1: np.fliplr,
        2: np.flipud,
        3: lambda a: np.rot90(a, 2),
        4: lambda a: a.transpose(1, 0, 2),
        5: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: np.rot90,
    }[undo[orientation]](stored)
    Image.fromarray(np.ascontiguousarray(stored)).save(raw / "a.jpg", exif=exif, quality=95)
    build(tmp_path / "out", raw, options=shards.Options(short_side_px=0))
    record = sources.open_split(tmp_path / "out", "tiny", "train")[0]
    image = decode_example(record)["image"]
    assert image.shape == (30, 60, 3)
    assert np.abs(image.astype(float) - upright).mean() < 6
    plain = cv2.imdecode(
        np.frombuffer(record["image"], np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | 1
    )
    assert plain.shape == (30, 60, 3)


def test_exact_duplicates_of_the_whole_set_are_dropped(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 9)
    for copy, original in ((3, 0), (5, 0), (8, 7)):  # in one shard, in another, in a third
        (raw / f"{copy:04d}.jpg").write_bytes((raw / f"{original:04d}.jpg").read_bytes())
    folder = build(tmp_path / "out", raw)
    assert [e["id"] for e in examples(tmp_path / "out")] == [f"{n:04d}" for n in (0, 1, 2, 4, 6, 7)]
    assert report(folder)["duplicates"] == 3 and report(folder)["records"] == 6
    before = contents(folder)
    shard = sorted(folder.glob("*.array_record-*"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    assert build(tmp_path / "out", raw) == folder and contents(folder) == before


def test_a_shard_of_nothing_but_duplicates_can_be_read(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 9)
    (raw / "0008.jpg").write_bytes((raw / "0000.jpg").read_bytes())
    build(tmp_path / "out", raw)
    assert [e["id"] for e in examples(tmp_path / "out")] == [f"{n:04d}" for n in range(8)]


def test_undecodable_unlabelled_images_are_listed_with_the_reason(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 6)
    (raw / "0001.jpg").write_bytes((raw / "0001.jpg").read_bytes()[:300])
    (raw / "0004.jpg").write_bytes(b"")
    (raw / "0005.jpg").write_text("not an image")
    folder = build(tmp_path / "out", raw)
    assert len(examples(tmp_path / "out")) == 3
    reasons = {line["id"]: line["reason"] for line in report(folder)["skipped"]}
    assert set(reasons) == {"0001", "0004", "0005"}
    assert "truncated" in reasons["0001"] and "empty" in reasons["0004"]
    assert "known format" in reasons["0005"]


def test_a_set_without_one_usable_image_is_an_error(catalogued, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(DavError, match=r"not one example of tiny.*a: it is not an image"):
        build(tmp_path / "out", raw)
    assert prepare.find(tmp_path / "out", "tiny") is None


def test_depth_comes_back_as_it_was(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 3, labelled=True)
    depth_m = np.load(raw / "0001.npy")
    depth_m[0, :4] = (np.nan, np.inf, 0, -1)
    np.save(raw / "0001.npy", depth_m)
    build(tmp_path / "out", raw, "tiny/depth")
    example = examples(tmp_path / "out", "tiny/depth", decode_metric_example)[1]
    assert not example["valid"][0, :4].any() and example["valid"].sum() == 40 * 60 - 4
    valid = example["valid"]
    np.testing.assert_allclose(example["depth_m"][valid], depth_m[valid], rtol=1e-4)
    record = sources.open_split(tmp_path / "out", "tiny/depth", "train")[1]
    assert record["image"] == (raw / "0001.jpg").read_bytes()


@pytest.mark.parametrize("damage", ["image", "missing", "size"])
def test_a_broken_labelled_example_stops_unless_told_to_skip(catalogued, tmp_path, damage):
    raw = tiny.write_pictures(tmp_path / "raw", 3, labelled=True)
    if damage == "image":
        (raw / "0001.jpg").write_bytes((raw / "0001.jpg").read_bytes()[:400])
    if damage == "missing":
        (raw / "0001.npy").unlink()
    if damage == "size":
        np.save(raw / "0001.npy", np.ones((41, 60), np.float32))
    with pytest.raises(DavError, match="0001"):
        build(tmp_path / "out", raw, "tiny/depth")
    options = replace(OPTIONS, skip_broken=True)
    folder = build(tmp_path / "other", raw, "tiny/depth", options=options)
    assert report(folder)["records"] == 2 and "0001" in report(folder)["skipped"][0]["id"]


def test_an_all_invalid_map_is_skipped_with_the_reason(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 2, labelled=True)
    np.save(raw / "0000.npy", np.full((40, 60), np.nan, np.float32))
    folder = build(tmp_path / "out", raw, "tiny/depth")
    assert report(folder)["skipped"] == [{"id": "0000", "reason": "its target has no valid pixel"}]


def test_sky_masks_are_valid_and_infinitely_far(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 2, labelled=True)
    sky = np.zeros((40, 60), np.uint8)
    sky[:10, 5:] = 255
    (tmp_path / "sky").mkdir()
    options = replace(OPTIONS, sky=str(tmp_path / "sky"))
    cv2.imwrite(str(tmp_path / "sky/0000.png"), sky)
    with pytest.raises(DavError, match=r"0001\.png is missing.*dav\.data\.sky"):
        build(tmp_path / "out", raw, "tiny/depth", options=options)
    cv2.imwrite(str(tmp_path / "sky/0001.png"), sky[:20])
    with pytest.raises(DavError, match=r"0001\.png is \(20, 60\)"):
        build(tmp_path / "out", raw, "tiny/depth", options=options)
    cv2.imwrite(str(tmp_path / "sky/0001.png"), 255 - sky)
    build(tmp_path / "out", raw, "tiny/depth", options=options)
    first, second = examples(tmp_path / "out", "tiny/depth")
    assert first["valid"].all() and not first["disparity"][:10, 5:].any()
    assert (first["disparity"][10:] > 0).all() and (second["disparity"][:10, 5:] > 0).all()
    measured = examples(tmp_path / "out", "tiny/depth", decode_metric_example)[0]
    assert (measured["valid"] == (sky == 0)).all()


def test_an_unfinished_build_goes_on_with_the_missing_shards(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 10)
    expected = contents(build(tmp_path / "whole", raw))

    def first_only(work, tell):
        shards.build(work[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", raw, run=first_only)
    assert prepare.find(tmp_path / "out", "tiny") is None
    built = []

    def note(work, tell):
        built.extend(shard.index for shard in work)
        building.in_process(work, tell)

    folder = build(tmp_path / "out", raw, run=note)
    assert built == [1, 2] and contents(folder) == expected
    build(tmp_path / "out", raw, run=note)
    assert built == [1, 2]


def test_other_files_or_options_in_the_middle_are_refused(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 10)

    def stop(work, tell):
        shards.build(work[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", raw, run=stop)
    with pytest.raises(DavError, match=r"1\.0\.0\.incomplete was begun with other options"):
        build(tmp_path / "out", raw, options=replace(OPTIONS, quality=80))
    (raw / "0000.jpg").unlink()
    with pytest.raises(DavError, match="other files in the raw folder"):
        build(tmp_path / "out", raw)


def test_a_build_of_which_nothing_is_finished_begins_anew_with_other_files(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 9, labelled=True)
    (raw / "0000.npy").unlink()
    with pytest.raises(DavError, match=r"0000\.npy is missing"):
        build(tmp_path / "out", raw, "tiny/depth")
    staged = tmp_path / "out/tiny/depth/1.0.0.incomplete"
    left = staged / "tiny_depth-train.array_record-00002-of-00003"  # killed before its part file
    left.write_bytes(b"x")
    for number in (0, 8):
        (raw / f"{number:04d}.jpg").unlink()
    folder = build(tmp_path / "out", raw, "tiny/depth")
    assert report(folder)["records"] == 7 and not (folder / left.name).exists()


@pytest.mark.parametrize("processes", [2, 3])
def test_worker_processes_build_the_same_bytes(catalogued, tmp_path, processes):
    raw = tiny.write_pictures(tmp_path / "raw", 14)
    (raw / "0013.jpg").write_bytes((raw / "0002.jpg").read_bytes())
    expected = contents(build(tmp_path / "one", raw))
    run = functools.partial(building.in_processes, processes=processes)
    assert contents(build(tmp_path / "many", raw, run=run)) == expected


def test_an_error_in_a_worker_process_arrives_whole(catalogued, tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 9, labelled=True)
    (raw / "0006.npy").unlink()
    run = functools.partial(building.in_processes, processes=2)
    with pytest.raises(DavError, match=r"0006\.npy is missing"):
        build(tmp_path / "out", raw, "tiny/depth", run=run)
    assert not multiprocessing.active_children()


def test_beam_builds_the_same_bytes(catalogued, tmp_path):
    pytest.importorskip("apache_beam")
    from dav.data import beam

    raw = tiny.write_pictures(tmp_path / "raw", 10)
    (raw / "0009.jpg").write_bytes((raw / "0002.jpg").read_bytes())
    expected = contents(build(tmp_path / "one", raw))
    told = []
    folder = build(tmp_path / "beam", raw, run=beam.run, tell=lambda *counts: told.append(counts))
    assert contents(folder) == expected and told[-1] == (10, 10, 10)


def test_an_error_in_beam_arrives_whole(catalogued, tmp_path):
    pytest.importorskip("apache_beam")
    from dav.data import beam

    raw = tiny.write_pictures(tmp_path / "raw", 9, labelled=True)
    (raw / "0006.npy").unlink()
    with pytest.raises(DavError, match=r"0006\.npy is missing"):
        build(tmp_path / "out", raw, "tiny/depth", run=beam.run)
    np.save(raw / "0006.npy", np.ones((40, 60), np.float32))
    build(tmp_path / "out", raw, "tiny/depth", run=beam.run)
    assert len(examples(tmp_path / "out", "tiny/depth")) == 9


def test_raw_folders_that_are_not_there_are_named(catalogued, tmp_path):
    with pytest.raises(ConfigError, match="--raw=DIR"):
        build(tmp_path / "out", None)
    with pytest.raises(ConfigError, match="nowhere"):
        build(tmp_path / "out", tmp_path / "nowhere")
    (tmp_path / "raw").mkdir()
    with pytest.raises(DavError, match="holds nothing"):
        build(tmp_path / "out", tmp_path / "raw")
