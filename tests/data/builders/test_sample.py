import csv
import hashlib
import importlib.resources
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from dav.data import prepare, sources
from dav.data.builders import sample
from dav.data.examples import decode_example, decode_metric_example
from dav.errors import ConfigError, DavError

FOLDER = importlib.resources.files("dav") / "sample"


def open_sample(root, name, split):
    return sources.Decoded(sources.open_split(root, name, split), decode_example)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_has_the_checksum_of_the_table():
    for row in sample.read_table():
        for kind in ("image", "depth"):
            if row[kind]:
                content = (FOLDER / row[kind]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == row[f"{kind}_sha256"], row[kind]


def test_the_package_stays_small_and_holds_nothing_else():
    files = {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.is_file()}
    named = {row[kind] for row in sample.read_table() for kind in ("image", "depth")} - {""}
    assert files == named | {"sample.csv", "CREDITS.md"}
    assert sum((FOLDER / name).stat().st_size for name in files) <= 12 << 20


def test_splits_have_the_documented_counts(sample_root):
    counts = Counter((row["source"], row["split"]) for row in sample.read_table())
    assert counts == {
        ("icl", "train"): 110,
        ("icl", "heldout"): 17,
        ("tum", "train"): 6,
        ("tum", "heldout"): 2,
        ("lab", "heldout"): 5,
        ("photos", "train"): 52,
    }
    for (name, split), count in counts.items():
        assert len(open_sample(sample_root, f"sample/{name}", split)) == count


def test_the_video_is_held_out_by_position():
    position = {"train": [], "heldout": []}
    for row in sample.read_table():
        if row["source"] == "icl":
            position[row["split"]].append(int(row["id"]))
    assert max(position["train"]) + 8 <= min(position["heldout"])


@pytest.mark.parametrize(
    ("name", "depth_m"), [("icl", (0.9, 2.7)), ("tum", (0.7, 2.0)), ("lab", (0.9, 9.0))]
)
def test_depth_is_in_metres(sample_root, name, depth_m):
    """A desk and a chair are a metre or two away, a laboratory's walls less than ten."""
    example = open_sample(sample_root, f"sample/{name}", "heldout")[0]
    depth = 1 / example["disparity"][example["valid"]]
    low, high = np.percentile(depth, [2, 98])
    assert depth_m[0] * 0.8 < low < high < depth_m[1] * 1.2
    assert 0.5 < example["valid"].mean() <= 1
    assert not example["disparity"][~example["valid"]].any()


def test_a_known_pixel_keeps_its_value(sample_root):
    row = next(row for row in sample.read_table() if row["source"] == "tum")
    steps = cv2.imread(str(FOLDER / row["depth"]), cv2.IMREAD_UNCHANGED)
    y, x = np.argwhere(steps > 0)[1000]
    example = open_sample(sample_root, "sample/tum", "train")[0]
    assert example["disparity"][y, x] == pytest.approx(5000 / steps[y, x], rel=1e-6)


def test_photographs_have_no_target(sample_root):
    example = open_sample(sample_root, "sample/photos", "train")[3]
    assert set(example) == {"id", "image"}
    assert example["image"].dtype == np.uint8 and min(example["image"].shape[:2]) == 240


def test_a_damaged_sample_file_is_named(tmp_path, monkeypatch):
    rows = sample.read_table()
    victim = next(row for row in rows if row["source"] == "tum")
    victim["image_sha256"] = "0" * 64
    monkeypatch.setattr(sample, "read_table", lambda: rows)
    with pytest.raises(DavError, match=rf"{victim['image']}.*damaged.*git checkout"):
        prepare.prepare(tmp_path, "sample/tum")
    assert prepare.find(tmp_path, "sample/tum") is None


def test_preparing_again_repairs_a_damaged_shard_and_touches_nothing_else(tmp_path):
    folder = prepare.prepare(tmp_path, "sample/tum")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    prepare.prepare(tmp_path, "sample/tum")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    shard = sources.split_shards(tmp_path, "sample/tum", "train")[0]
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    assert prepare.damaged_files(folder) == [shard.name]
    prepare.prepare(tmp_path, "sample/tum")
    assert shard.read_bytes() == content


def test_unknown_data_sets_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="sample/icl"):
        prepare.prepare(tmp_path, "sample/kitchen")
    with pytest.raises(DavError, match="not prepared"):
        sources.open_split(tmp_path, "sample/icl", "train")


def test_a_missing_split_is_named(sample_root):
    with pytest.raises(DavError, match="no split 'train'"):
        sources.open_split(sample_root, "sample/lab", "train")


@pytest.mark.parametrize("cut", [0, 10, 1000])
def test_a_truncated_image_is_one_clear_error(sample_root, cut):
    record = dict(sources.open_split(sample_root, "sample/tum", "train")[0])
    record["image"] = record["image"][:cut]
    record["target"] = record["target"][:cut]
    with pytest.raises(DavError, match="tum/000"):
        decode_example(record)


def test_an_eight_bit_target_is_refused(sample_root):
    record = dict(sources.open_split(sample_root, "sample/tum", "train")[0])
    record["target"] = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    with pytest.raises(DavError, match="16-bit"):
        decode_metric_example(record)


def test_the_table_is_plain_csv():
    rows = list(csv.DictReader((FOLDER / "sample.csv").read_text().splitlines()))
    assert rows == sample.read_table()


def test_a_flipped_byte_in_a_shard_is_found_when_read_and_repaired_by_preparing(tmp_path):
    prepare.prepare(tmp_path, "sample/tum")
    shard = sources.split_shards(tmp_path, "sample/tum", "train")[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    records = sources.open_split(tmp_path, "sample/tum", "train")
    with pytest.raises(DavError, match=r"sample/tum.*--job=prepare"):
        [records[index] for index in range(len(records))]
    prepare.prepare(tmp_path, "sample/tum")
    records = sources.open_split(tmp_path, "sample/tum", "train")
    assert len([records[index] for index in range(len(records))]) == 6


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_an_unfinished_folder_is_built_anew_and_not_taken_for_finished(tmp_path, damage):
    """Killed between the engine's last file and ours, or in the middle of a removal."""
    folder = prepare.prepare(tmp_path, "sample/tum")
    shard = sources.split_shards(tmp_path, "sample/tum", "train")[0]
    content = shard.read_bytes()
    (folder / prepare.MARKER).unlink()
    shard.unlink() if damage == "missing" else shard.write_bytes(content[:100])
    assert prepare.find(tmp_path, "sample/tum") is None
    assert prepare.prepare(tmp_path, "sample/tum") == folder
    assert shard.read_bytes() == content and not prepare.damaged_files(folder)


def test_a_data_set_built_elsewhere_is_found_and_never_touched(tmp_path, sample_root):
    theirs = tmp_path / "mine" / "1.10.0"
    shutil.copytree(prepare.find(sample_root, "sample/tum"), theirs)
    (theirs / prepare.MARKER).unlink()
    shutil.copytree(theirs, tmp_path / "mine" / "1.9.0")
    before = contents(theirs)
    assert prepare.prepare(tmp_path, "mine") == theirs
    assert contents(theirs) == before


def test_two_processes_do_not_build_below_one_root(tmp_path):
    with (
        prepare._only_process(tmp_path / "sample/tum", "sample/tum"),
        pytest.raises(DavError, match="another process"),
    ):
        prepare.prepare(tmp_path, "sample/tum")


def test_a_damaged_table_is_named(monkeypatch):
    monkeypatch.setattr(sample, "TABLE_SHA256", "0" * 64)
    with pytest.raises(DavError, match=r"sample\.csv is damaged"):
        sample.read_table()
