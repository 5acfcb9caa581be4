import hashlib
import shutil

import cv2
import numpy as np
import pytest
from raw_files import ramp, stored, stored_disparity, write_image, write_steps

from dav.data.builders import kitti
from dav.data.frames import Skipped
from dav.errors import DavError

(BUILDER,) = kitti.BUILDERS
# Of "<drive> <frame>\n", the published list of test frames with depth, sorted.
TEST_SHA256 = "a1dc3cb6db9bf9085907d6486efb43026cc49a6802368d94c255b31290d748db"
ITEM = ("2011_09_26_drive_0009", 196)


def paths(raw, item, part="train"):
    drive, number = item
    image = raw / "raw" / drive[:10] / f"{drive}_sync/image_02/data/{number:010d}.png"
    below = f"{drive}_sync/proj_depth/groundtruth/image_02/{number:010d}.png"
    return image, raw / "data_depth_annotated" / part / below


def write_frame(raw, item, steps, part="train"):
    image, depth = paths(raw, item, part)
    write_image(image, steps.shape)
    write_steps(depth, steps)
    return image, depth


def make_drives(raw, drives):
    for index, drive in enumerate(drives):
        for path in paths(raw, (drive, 0), ("train", "val")[index % 2]):
            path.parent.mkdir(parents=True)


def drives_of(items):
    return list(dict.fromkeys(drive for drive, _ in items))


def test_the_test_list_is_the_published_one():
    frames = kitti.test_frames()
    lines = "".join(f"{drive} {number:010d}\n" for drive, number in frames)
    assert hashlib.sha256(lines.encode()).hexdigest() == TEST_SHA256
    assert len(frames) == len(set(frames)) == 652 == BUILDER.counts["test"]
    assert len(drives_of(frames)) == 28
    # the list as monodepth2 publishes it has 28,471 characters
    monodepth2 = [f"{drive[:10]}/{drive}_sync {number} l\n" for drive, number in frames]
    assert sum(map(len, monodepth2)) == 28471


def test_the_training_list_is_what_is_annotated_of_eigens_drives():
    frames = kitti.train_frames()
    assert len(frames) == len(set(frames)) == 23158 == BUILDER.counts["train"]
    assert len(drives_of(frames)) == 33
    assert not set(drives_of(frames)) & set(drives_of(kitti.test_frames()))
    assert ("2011_09_30_drive_0028", 5171) in frames
    assert ("2011_09_30_drive_0028", 5172) not in frames
    assert not any(number < 5 for _, number in frames + kitti.test_frames())


def test_splits_are_planned_when_all_of_their_drives_are_there(tmp_path):
    with pytest.raises(DavError, match="neither .*raw nor .* holds a drive of the Eigen split"):
        BUILDER.plan(tmp_path)
    make_drives(tmp_path, drives_of(kitti.test_frames()))
    assert BUILDER.plan(tmp_path) == {"test": kitti.test_frames()}
    make_drives(tmp_path, drives_of(kitti.train_frames())[:-1])
    with pytest.raises(DavError, match="2011_10_03_drive_0042_sync.* is missing, with 1 of 33"):
        BUILDER.plan(tmp_path)
    make_drives(tmp_path, ["2011_10_03_drive_0042"])
    assert BUILDER.plan(tmp_path) == {"test": kitti.test_frames(), "train": kitti.train_frames()}


def test_dates_may_stand_beside_the_depth(tmp_path):
    make_drives(tmp_path, drives_of(kitti.test_frames()))
    write_frame(tmp_path, ITEM, ramp())
    for date in (tmp_path / "raw").iterdir():
        date.rename(tmp_path / date.name)
    (tmp_path / "raw").rmdir()
    assert BUILDER.plan(tmp_path) == {"test": kitti.test_frames()}
    (frame,) = BUILDER.read(tmp_path, ITEM)
    assert frame.id == "2011_09_26_drive_0009/0000000196"


def test_a_drive_without_its_depth_folder_is_named(tmp_path):
    make_drives(tmp_path, drives_of(kitti.test_frames()))
    shutil.rmtree(paths(tmp_path, ("2011_10_03_drive_0047", 0), "val")[1].parent)
    with pytest.raises(DavError, match="2011_10_03_drive_0047.*data_depth_annotated.zip"):
        BUILDER.plan(tmp_path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_steps_of_a_256th_metre_with_zero_invalid(tmp_path, part):
    steps = ramp((6, 8), first=256, step=100)
    steps[2, 5] = 0
    image, _ = write_frame(tmp_path, ITEM, steps, part)
    (frame,) = BUILDER.read(tmp_path, ITEM)
    assert frame.id == "2011_09_26_drive_0009/0000000196"
    assert frame.image == image.read_bytes()
    example = stored(frame)
    assert example["depth_m"][0, 0] == 1.0 and example["depth_m"][0, 1] == 356 / 256
    assert example["depth_m"][5, 0] == (256 + 4000) / 256
    assert not example["valid"][2, 5] and example["valid"].sum() == 47
    disparity = stored_disparity(frame)
    assert disparity["disparity"][0, 1] == pytest.approx(256 / 356)
    assert disparity["disparity"][2, 5] == 0 and not disparity["valid"][2, 5]


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    image, depth = write_frame(tmp_path, ITEM, ramp())
    write_steps(depth, ramp((7, 8)))
    with pytest.raises(DavError, match=f"{depth} is 8×7, its image {image} is 8×6"):
        list(BUILDER.read(tmp_path, ITEM))
    depth.write_bytes(depth.read_bytes()[:60])
    with pytest.raises(DavError, match=f"cannot read {depth}"):
        list(BUILDER.read(tmp_path, ITEM))
    depth.unlink()
    with pytest.raises(DavError, match=f"{depth}, which belongs to {image}, is missing"):
        list(BUILDER.read(tmp_path, ITEM))
    image.unlink()
    with pytest.raises(DavError, match=f"{image} is missing"):
        list(BUILDER.read(tmp_path, ITEM))


def test_depth_that_a_tool_has_cut_to_8_bits_is_refused(tmp_path):
    _, depth = write_frame(tmp_path, ITEM, ramp(first=1, step=5, dtype=np.uint8))
    with pytest.raises(DavError, match=f"{depth} has 8 bits"):
        list(BUILDER.read(tmp_path, ITEM))


def test_a_frame_without_a_measured_pixel_is_skipped(tmp_path):
    write_frame(tmp_path, ITEM, np.zeros((6, 8), np.uint16))
    (skipped,) = BUILDER.read(tmp_path, ITEM)
    assert isinstance(skipped, Skipped) and "no valid pixel" in skipped.reason


@pytest.mark.parametrize("name", ["m3d_005", "m3d_050", "w_071"])
def test_real_annotated_depth(extra_data, tmp_path, name):
    """370 to 375 rows; values are those of the file."""
    samples = extra_data / "samples" / "kitti_annotated"
    image, depth = paths(tmp_path, ITEM)
    for source, path in ((f"{name}_image.png", image), (f"{name}_gt.png", depth)):
        path.parent.mkdir(parents=True)
        shutil.copy(samples / source, path)
    (frame,) = BUILDER.read(tmp_path, ITEM)
    example = stored(frame)
    steps = cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)
    assert steps.dtype == np.uint16
    np.testing.assert_array_equal(example["depth_m"], (steps / 256).astype(np.float32))
    np.testing.assert_array_equal(example["valid"], steps > 0)
    assert 0.1 < example["valid"].mean() < 0.3 and 1 < example["depth_m"].max() < 90
    assert (example["image"] == cv2.imread(str(image))[..., ::-1]).all()


def test_real_drive_with_projected_points(extra_data, tmp_path):
    samples = extra_data / "samples" / "kitti_raw"
    numbers = (6, 18)
    for number in numbers:
        image, depth = paths(tmp_path, ("2011_09_26_drive_0001", number))
        for source, path in (("image_02", image), ("proj_depth/image_02", depth)):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(samples / source / path.name, path)
    for number in numbers:
        (frame,) = BUILDER.read(tmp_path, ("2011_09_26_drive_0001", number))
        assert 4 < np.median(stored(frame)["depth_m"][frame.target.valid]) < 30
