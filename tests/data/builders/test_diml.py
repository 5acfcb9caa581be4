import shutil

import numpy as np
import pytest
from labelled_trees import everything, measured, survives, trained_on, write_image, write_steps

from dav.data.builders import diml
from dav.errors import DavError

BOTH, INDOOR, OUTDOOR = diml.BUILDERS
STEPS = np.array([[1000, 2000, 0, 500], [65500, 65501, 65535, 256], [1, 4000, 258, 8000]])
VALID = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], bool)
CONFIDENCE = np.array([[255, 230, 255, 229], [255, 255, 255, 0], [255, 153, 240, 231]])


def write_room(batch, stem, ending="_ud.png", folders=("col", "up_png")):
    write_image(batch / folders[0] / f"{stem}_c.png")
    write_steps(batch / folders[1] / f"{stem}{ending}", STEPS)


def write_street(batch, stem, release="full"):
    names = {
        "full": ("left/{}_left.png", "depth/{}_depth.png", "conf/{}_conf.png"),
        "sample": ("outleft/{}.png", "depthmap/{}.png", "confidencemap/{}.png"),
    }
    image, depth, confidence = (batch / name.format(stem) for name in names[release])
    write_image(image)
    write_steps(depth, STEPS)
    write_steps(confidence, CONFIDENCE, np.uint8)


@pytest.fixture
def full(tmp_path):
    write_room(tmp_path / "indoor/01. Warehouse/160601/1", "in_00_2")
    write_room(tmp_path / "indoor/01. Warehouse/160601/1", "in_00_1")
    write_room(tmp_path / "indoor/16. Billiard Hall/160706/2", "in_01_1", "_fill.png")
    write_street(tmp_path / "outdoor/170721_C0/B", "170721_C0_000001")
    (tmp_path / "outdoor/170721_C0/readme.txt").touch()
    return tmp_path


@pytest.fixture
def sample(tmp_path):
    folders = ("color", "depth_filled")
    for split in ("train", "test"):
        for quality in ("HR", "LR"):
            room = tmp_path / f"indoor/{split}/{quality}/07"
            write_room(room, f"in_{split}", "_depth_filled.png", folders)
            write_street(tmp_path / f"outdoor/{split}/{quality}", f"out_{split}", "sample")
    return tmp_path


def test_the_full_release_is_all_for_training(full):
    ids = {split: [each.id for each in found] for split, found in everything(BOTH, full).items()}
    assert ids == {
        "train": [
            "indoor/01. Warehouse/160601/1/in_00_1",
            "indoor/01. Warehouse/160601/1/in_00_2",
            "indoor/16. Billiard Hall/160706/2/in_01_1",
            "outdoor/170721_C0/B/170721_C0_000001",
        ]
    }


def test_the_sample_release_has_splits_and_its_high_resolution_is_used(sample):
    ids = {split: [each.id for each in found] for split, found in everything(BOTH, sample).items()}
    assert ids == {
        split: [f"indoor/{split}/HR/07/in_{split}", f"outdoor/{split}/HR/out_{split}"]
        for split in ("train", "test")
    }
    shutil.rmtree(sample / "indoor/train/HR")
    assert everything(INDOOR, sample)["train"][0].id == "indoor/train/LR/07/in_train"


def test_rooms_are_in_millimetres_and_zero_and_the_top_are_unmeasured(full):
    example = measured(everything(BOTH, full)["train"][0])
    assert (example["valid"] == VALID).all()
    np.testing.assert_allclose(example["depth_m"][VALID], STEPS[VALID] / 1000, rtol=1e-6)
    assert example["depth_m"][1, 3] == pytest.approx(0.256)  # bytes exchanged: 0.001
    assert not example["depth_m"][~VALID].any()


def test_unsure_pixels_of_streets_are_unmeasured_and_no_metres_are_claimed(full):
    frame = everything(BOTH, full)["train"][-1]
    example = trained_on(frame)
    sure = CONFIDENCE > 229.5  # .9 of 255: 229 and .6, 153, are not enough
    assert (example["valid"] == (VALID & sure)).all()
    assert example["valid"][0, 1] and not example["valid"][0, 3] and not example["valid"][2, 1]
    assert example["disparity"][0, 0] == pytest.approx(2 * example["disparity"][0, 1])
    with pytest.raises(DavError, match="has depth, not depth in metres"):
        measured(frame)


def test_either_part_can_be_built_alone(full):
    shutil.rmtree(full / "outdoor")
    assert len(everything(INDOOR, full)["train"]) == 3
    for builder in (BOTH, OUTDOOR):
        with pytest.raises(DavError, match=r"outdoor is missing: unpack DIML"):
            builder.plan(full)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("indoor/16. Billiard Hall/160706/2/up_png", r"2/up_png is missing: unpack DIML"),
        ("indoor/16. Billiard Hall/160706/2/col", r"2/col is missing: unpack DIML"),
        ("indoor/01. Warehouse/160601/1/up_png/in_00_1_ud.png", r"in_00_1_ud\.png is missing"),
        ("indoor/01. Warehouse/160601/1/col/in_00_2_c.png", r"in_00_2_c\.png is missing"),
        ("outdoor/170721_C0/B/conf", r"B/conf is missing"),
        ("outdoor/170721_C0/B/depth", r"B/depth is missing"),
    ],
)
def test_what_is_missing_is_named(full, gone, message):
    path = full / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DavError, match=message):
        BOTH.plan(full)


def test_another_layout_is_said_with_the_expected_one(full):
    shutil.move(full / "outdoor/170721_C0/B/left", full / "outdoor/170721_C0/B/images")
    shutil.move(full / "outdoor/170721_C0/B/depth", full / "outdoor/170721_C0/B/maps")
    with pytest.raises(DavError, match=r"no folder .*left.* below .*outdoor: .*PLACE/BATCH"):
        BOTH.plan(full)


def test_mixed_endings_of_one_folder_are_named(full):
    write_room(full / "indoor/01. Warehouse/160601/1", "in_00_3", "_xx.png")
    with pytest.raises(DavError, match=r"in_00_3_ud\.png is missing"):
        BOTH.plan(full)


def test_eight_bit_depth_and_other_sizes_are_named(full):
    street = full / "outdoor/170721_C0/B"
    write_steps(street / "conf/170721_C0_000001_conf.png", CONFIDENCE.T, np.uint8)
    with pytest.raises(DavError, match=r"conf\.png is \(4, 3\) and its depth \(3, 4\)"):
        everything(OUTDOOR, full)
    write_steps(street / "depth/170721_C0_000001_depth.png", STEPS // 256, np.uint8)
    with pytest.raises(DavError, match=r"depth\.png has 8 bits"):
        everything(OUTDOOR, full)
    write_image(full / "indoor/01. Warehouse/160601/1/col/in_00_1_c.png", 6, 8)
    with pytest.raises(DavError, match=r"in_00_1_c\.png is 8×6"):
        everything(INDOOR, full)


def test_damaged_maps(full):
    survives(BOTH, full, full / "indoor/01. Warehouse/160601/1/up_png/in_00_1_ud.png")
    survives(BOTH, full, full / "outdoor/170721_C0/B/conf/170721_C0_000001_conf.png")
