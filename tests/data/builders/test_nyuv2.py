import shutil

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from raw_files import build, ramp, stored, write_image, write_steps

from dav.data.builders import nyuv2
from dav.data.frames import Skipped
from dav.errors import DavError

RAW, FILLED, BTS = nyuv2.BUILDERS
HEIGHT, WIDTH = 6, 8
FRAMES = 4


def filled_depth_m():
    """[FRAMES, H, W], every value another."""
    grid = np.arange(FRAMES * HEIGHT * WIDTH, dtype=np.float32)
    return 1 + grid.reshape(FRAMES, HEIGHT, WIDTH) / 32


def images():
    return np.random.default_rng(1).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)


def write_labelled(raw, *, numbers=None, depth_m=None):
    """The two .mat files; MATLAB's [H, W, 3, N] is [N, 3, W, H] in HDF5."""
    depths = filled_depth_m() if depth_m is None else depth_m
    measured = depths.copy()
    measured[:, 2, 5] = 0
    with h5py.File(raw / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images().transpose(0, 3, 2, 1)
        file["depths"] = depths.transpose(0, 2, 1)
        file["rawDepths"] = measured.transpose(0, 2, 1)
    numbers = np.arange(1, 655) if numbers is None else numbers
    scipy.io.savemat(raw / "splits.mat", {"testNdxs": np.reshape(numbers, (-1, 1))})


def write_pair(folder, number, depth):
    image = folder / f"rgb_{number:05d}.jpg"
    write_image(image, depth.shape, seed=number)
    write_steps(folder / f"sync_depth_{number:05d}.png", depth)
    return image


def test_numbers_count_from_one_in_matlab_and_from_zero_here(tmp_path):
    write_labelled(tmp_path, numbers=[2, 1, *range(797, 1449)])
    items = RAW.plan(tmp_path)["test"]
    assert items[:3] == [1, 0, 796] and len(items) == 654
    (frame,) = RAW.read(tmp_path, items[0])
    assert frame.id == "00001"
    np.testing.assert_array_equal(frame.image, images()[1])


def test_axes_are_put_back_and_raw_depth_has_holes(tmp_path):
    write_labelled(tmp_path)
    (raw,), (filled,) = RAW.read(tmp_path, 3), FILLED.read(tmp_path, 3)
    example, whole = stored_array(raw), stored_array(filled)
    assert example["depth_m"].shape == (HEIGHT, WIDTH) == example["image"].shape[:2]
    first = 1 + 3 * 48 / 32
    for row, column in ((0, 0), (0, 7), (5, 0), (5, 7)):
        expected = first + (8 * row + column) / 32
        assert example["depth_m"][row, column] == pytest.approx(expected, rel=1e-4)
        assert whole["depth_m"][row, column] == pytest.approx(expected, rel=1e-4)
    assert np.argwhere(~example["valid"]).tolist() == [[2, 5]] and whole["valid"].all()
    np.testing.assert_array_equal(raw.image, images()[3])
    assert raw.image.flags.c_contiguous and raw.image.dtype == np.uint8


def stored_array(frame):
    """A frame whose image is an array, through a record."""
    content = cv2.imencode(".png", frame.image[..., ::-1])[1].tobytes()
    return stored(type(frame)(frame.id, content, frame.target))


@pytest.mark.parametrize("numbers", [range(1, 654), [1] * 654, range(0, 654), range(797, 1451)])
def test_a_split_that_is_not_the_published_one_is_an_error(tmp_path, numbers):
    write_labelled(tmp_path, numbers=list(numbers))
    with pytest.raises(DavError, match="splits.mat"):
        RAW.plan(tmp_path)


def test_a_labelled_image_without_depth_is_skipped(tmp_path):
    write_labelled(tmp_path, depth_m=np.zeros((FRAMES, HEIGHT, WIDTH), np.float32))
    (skipped,) = RAW.read(tmp_path, 0)
    assert isinstance(skipped, Skipped) and "rawDepths" in skipped.reason


def test_only_splits_whose_files_are_there(tmp_path):
    with pytest.raises(DavError, match="neither nyu_depth_v2_labeled.mat nor"):
        RAW.plan(tmp_path)
    write_pair(tmp_path / "sync" / "cafe_0001a", 3, ramp())
    assert list(RAW.plan(tmp_path)) == ["train"]
    write_labelled(tmp_path)
    assert list(RAW.plan(tmp_path)) == ["test", "train"]
    assert list(FILLED.plan(tmp_path)) == ["test"]
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(DavError, match="splits.mat is missing"):
        RAW.plan(tmp_path)


def test_training_pairs_in_whole_millimetres(tmp_path):
    depth = ramp(first=1500, step=7)
    depth[1, 6] = 0
    image = write_pair(tmp_path / "sync" / "cafe_0001a", 12, depth)
    write_pair(tmp_path / "sync" / "bedroom_0004", 12, ramp())
    bedroom, cafe = build(RAW, tmp_path)["train"]
    assert (bedroom.id, cafe.id) == ("bedroom_0004/00012", "cafe_0001a/00012")
    assert cafe.image == image.read_bytes()
    example = stored(cafe)
    assert example["depth_m"][0, 0] == pytest.approx(1.5)
    assert example["depth_m"][5, 0] == pytest.approx(1.78)
    assert np.argwhere(~example["valid"]).tolist() == [[1, 6]]


def test_the_training_list_of_bts_chooses_pairs(tmp_path):
    for number in (1, 2, 3):
        write_pair(tmp_path / "sync" / "cafe", number, ramp())
    lines = [f"/cafe/rgb_0000{n}.jpg /cafe/sync_depth_0000{n}.png 518.8579\n" for n in (3, 1)]
    (tmp_path / nyuv2.LIST).write_text("".join(lines))
    assert RAW.plan(tmp_path)["train"] == [
        (f"sync/cafe/rgb_0000{n}.jpg", f"sync/cafe/sync_depth_0000{n}.png") for n in (3, 1)
    ]
    (tmp_path / nyuv2.LIST).write_text("/cafe/rgb_00009.jpg /cafe/sync_depth_00009.png 518.8579\n")
    with pytest.raises(DavError, match="rgb_00009.jpg is missing"):
        RAW.plan(tmp_path)
    (tmp_path / nyuv2.LIST).write_text("cafe\n")
    with pytest.raises(DavError, match="must name an image and its depth"):
        RAW.plan(tmp_path)


def test_bts_test_pack(tmp_path, monkeypatch):
    monkeypatch.setattr(nyuv2, "TEST_IMAGES", 2)
    folder = tmp_path / "official_splits" / "test"
    write_pair(folder / "bathroom", 45, ramp())
    with pytest.raises(DavError, match="holds 1 of 2 published"):
        BTS.plan(tmp_path)
    write_pair(folder / "kitchen", 0, ramp(first=2000))
    frames = build(BTS, tmp_path)["test"]
    assert [frame.id for frame in frames] == ["bathroom/00045", "kitchen/00000"]
    assert stored(frames[1])["depth_m"][0, 0] == pytest.approx(2)
    (folder / "kitchen" / "sync_depth_00000.png").unlink()
    with pytest.raises(DavError, match="sync_depth_00000.png, which belongs to"):
        BTS.plan(tmp_path)


def test_what_is_damaged_is_named(tmp_path):
    write_labelled(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with pytest.raises(DavError, match=str(path)):
        list(RAW.read(tmp_path, FRAMES))
    with h5py.File(path, "a") as file:
        del file["images"]
        file["images"] = images()
    with pytest.raises(DavError, match="images .* with rawDepths"):
        list(RAW.read(tmp_path, 0))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DavError, match=f"cannot read {path}"):
        list(RAW.read(tmp_path, 0))


@pytest.mark.parametrize("number", [0, 50])
def test_a_real_synchronised_pair(extra_data, tmp_path, number):
    folder = tmp_path / "sync" / "living_room_0001"
    folder.mkdir(parents=True)
    for name in (f"rgb_{number:05d}.jpg", f"sync_depth_{number:05d}.png"):
        shutil.copy(extra_data / "samples" / "nyu" / name, folder)
    (frame,) = build(RAW, tmp_path)["train"]
    example = stored(frame)
    steps = cv2.imread(str(folder / f"sync_depth_{number:05d}.png"), cv2.IMREAD_UNCHANGED)
    assert example["depth_m"].shape == (480, 640) == example["image"].shape[:2]
    np.testing.assert_allclose(example["depth_m"], steps / 1000, rtol=1e-6)
    np.testing.assert_array_equal(example["valid"], steps > 0)
    assert 0.5 < np.median(example["depth_m"][example["valid"]]) < 8
