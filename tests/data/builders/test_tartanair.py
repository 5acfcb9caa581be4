import shutil

import cv2
import numpy as np
import pytest
from labelled_trees import everything, measured, survives, trained_on, write_image, write_npy

from dav.data.builders import tartanair
from dav.data.frames import Frame, Skipped
from dav.errors import DavError

(BUILDER,) = tartanair.BUILDERS
DEPTH = np.array([[2, 10000, 1000, 999], [8, 0, -1, np.nan], [40, np.inf, 80, 5]], np.float32)
SKY = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], bool)


def write_frame(trajectory, index, depth_m=DEPTH, value=90):
    write_image(trajectory / f"image_left/{index:06d}_left.png", value=value)
    write_npy(trajectory / f"depth_left/{index:06d}_left_depth.npy", depth_m)


@pytest.fixture
def raw(tmp_path):
    for trajectory in ("gascola/gascola/Easy/P001", "gascola/gascola/Hard/P001", "ocean/Easy/P000"):
        for index in (1, 0):
            write_frame(tmp_path / trajectory, index)
        write_npy(tmp_path / trajectory / "seg_left/000000_left_seg.npy", DEPTH)
        (tmp_path / trajectory / "pose_left.txt").touch()
    return tmp_path


def test_trajectories_are_found_with_and_without_the_doubled_folder(raw):
    ids = {split: [each.id for each in found] for split, found in everything(BUILDER, raw).items()}
    trajectories = ("gascola/Easy/P001", "gascola/Hard/P001", "ocean/Easy/P000")
    assert ids == {"train": [f"{name}/{i:06d}" for name in trajectories for i in (0, 1)]}


def test_sky_is_at_infinity_for_training_and_unmeasured_in_metres(raw):
    frame = everything(BUILDER, raw)["train"][0]
    unmeasured = ~np.isfinite(DEPTH) | (DEPTH <= 0)
    example = trained_on(frame)
    assert (example["valid"] == (SKY | ~unmeasured)).all()
    assert not example["disparity"][SKY].any()
    near = example["disparity"][[0, 0, 1, 2], [0, 3, 0, 2]]
    np.testing.assert_allclose(near, 1 / np.array([2, 999, 8, 80]), rtol=1e-3)
    example = measured(frame)
    assert (example["valid"] == ~(SKY | unmeasured)).all()
    assert example["depth_m"][2, 0] == pytest.approx(40, rel=1e-3)  # metres; 2 would be pixels
    assert not example["depth_m"][SKY].any()


def test_the_environment_with_the_wrong_sky_is_left_out(raw):
    write_frame(raw / "amusement/amusement/Hard/P003", 4)
    skipped = everything(BUILDER, raw)["train"][0]
    assert isinstance(skipped, Skipped) and skipped.id == "amusement/Hard/P003/000004"
    assert "amusement" in skipped.reason and "dome" in skipped.reason


def test_black_images_and_nothing_but_sky_are_left_out(raw):
    for index, (depth_m, value) in enumerate(((DEPTH, 0), (np.full((3, 4), 2000.0), 90))):
        write_frame(raw / "ocean/Easy/P009", index, depth_m, value)
    path = raw / "ocean/Easy/P009/image_left/000000_left.png"
    write_image(path, 30, 40, value=5)  # one bright pixel among 1200
    write_npy(raw / "ocean/Easy/P009/depth_left/000000_left_depth.npy", np.ones((30, 40)))
    black, empty = everything(BUILDER, raw)["train"][-2:]
    assert black == Skipped("ocean/Easy/P009/000000", "its image is black")
    assert empty == Skipped("ocean/Easy/P009/000001", "000001_left_depth.npy has no valid pixel")


def test_dark_images_with_some_light_stay(raw):
    trajectory = raw / "some/folder/ocean/ocean/Hard/P009"  # unpacked further down, too
    write_image(trajectory / "image_left/000000_left.png", 10, 20, value=0)
    path = trajectory / "image_left/000000_left.png"
    pixels = cv2.imread(str(path)) * 0
    pixels[:2, :3] = 90  # 3 % of it
    cv2.imwrite(str(path), pixels)
    write_npy(trajectory / "depth_left/000000_left_depth.npy", np.ones((10, 20), np.float32))
    assert "ocean/Hard/P009/000000" in [
        entry.id for entry in everything(BUILDER, raw)["train"] if isinstance(entry, Frame)
    ]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("gascola/gascola/Easy/P001/depth_left", r"Easy/P001/depth_left is missing: download"),
        ("gascola/gascola/Easy/P001/image_left", r"Easy/P001/image_left is missing: download"),
        (
            "ocean/Easy/P000/depth_left/000001_left_depth.npy",
            r"000001_left_depth\.npy is missing.*half-finished",
        ),
    ],
)
def test_what_is_missing_is_named(raw, gone, message):
    path = raw / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DavError, match=message):
        BUILDER.plan(raw)


def test_a_raw_folder_that_hides_the_environment_is_refused(raw):
    with pytest.raises(DavError, match=r"Easy/P000 is not in a folder ENVIRONMENT/Easy or Hard"):
        BUILDER.plan(raw / "ocean")
    shutil.copytree(raw / "ocean", raw / "ocean/ocean")
    with pytest.raises(DavError, match="ocean/Easy/P000 stands twice"):
        BUILDER.plan(raw)


def test_version_2_is_not_taken_for_version_1(tmp_path):
    write_image(tmp_path / "ocean/Data_easy/P000/image_lcam_front/000000_lcam_front.png")
    with pytest.raises(DavError, match=r"no folder depth_left or image_left.*version 1"):
        BUILDER.plan(tmp_path)


def test_damaged_maps(raw):
    survives(BUILDER, raw, raw / "ocean/Easy/P000/depth_left/000001_left_depth.npy")
