import shutil

import numpy as np
import pytest
from raw_files import build, ramp, stored, stored_disparity, write_image, write_steps

from dav.data.builders import middlebury
from dav.data.frames import DISPARITY
from dav.errors import DavError

B2014, B2003 = middlebury.BUILDERS
CALIBRATION = """cam0=[1000.5 0 294.182; 0 1000.5 252.932; 0 0 1]
cam1=[1000.5 0 326.96; 0 1000.5 252.932; 0 0 1]
doffs=30.25
baseline=200
width=8
height=6
"""


def write_pfm(path, values, scale=-1.0):
    """Rows from bottom to top, as the format has it."""
    dtype = "<f4" if scale < 0 else ">f4"
    height, width = values.shape
    body = np.asarray(values, dtype)[::-1].tobytes()
    path.write_bytes(f"Pf\n{width} {height}\n{scale}\n".encode() + body)


def disparity_px():
    values = ramp(first=20, step=0.5, dtype=np.float32)
    values[0, 1], values[5, 6] = np.inf, np.inf
    return values


@pytest.fixture
def raw(tmp_path):
    for scene, name in (("Adirondack-perfect", "disp0.pfm"), ("trainingQ/Teddy", "disp0GT.pfm")):
        folder = tmp_path / scene
        write_image(folder / "im0.png")
        write_image(folder / "im1.png", seed=1)
        write_pfm(folder / name, disparity_px())
        (folder / "calib.txt").write_text(CALIBRATION)
    write_image(tmp_path / "testQ/Australia/im0.png")  # no ground truth
    return tmp_path


def test_disparity_becomes_metres_with_the_offset_of_the_centres(raw):
    frames = build(B2014, raw)["test"]
    assert [frame.id for frame in frames] == ["Adirondack-perfect", "trainingQ/Teddy"]
    for frame in frames:
        assert frame.target.values[0, 0] == pytest.approx(0.2 * 1000.5 / (20 + 30.25))
        assert frame.target.values[5, 7] == pytest.approx(0.2 * 1000.5 / (43.5 + 30.25))
        assert np.argwhere(~frame.target.valid).tolist() == [[0, 1], [5, 6]]
        example = stored(frame)
        assert example["depth_m"][0, 7] == pytest.approx(0.2 * 1000.5 / (23.5 + 30.25), rel=1e-4)


def test_the_folder_of_one_scene_will_do(raw):
    (frame,) = build(B2014, raw / "Adirondack-perfect")["test"]
    assert frame.id == "Adirondack-perfect"


def test_disparities_that_are_not_positive_are_invalid_before_the_offset(raw):
    values = disparity_px()
    values[2, 2:5] = 0, -1, 0.25
    write_pfm(raw / "Adirondack-perfect/disp0.pfm", values)
    frame = build(B2014, raw)["test"][0]
    assert frame.target.valid[2, 2:5].tolist() == [False, False, True]


def test_big_endian_maps_are_the_same(raw):
    write_pfm(raw / "Adirondack-perfect/disp0.pfm", disparity_px(), scale=1.0)
    first, second = build(B2014, raw)["test"]
    np.testing.assert_array_equal(first.target.values, second.target.values)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("doffs=30.25\n", "", "no line doffs"),
        ("[1000.5 0", "[0 0", "cannot be"),
        ("baseline=200", "baseline=wide", "wide"),
    ],
)
def test_a_torn_calibration_is_named(raw, old, new, told):
    (raw / "Adirondack-perfect/calib.txt").write_text(CALIBRATION.replace(old, new, 1))
    with pytest.raises(DavError, match=rf"Adirondack-perfect/calib\.txt.*{told}"):
        build(B2014, raw)


def test_what_is_missing_is_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"disp0\.pfm.*MiddEval3"):
        B2014.plan(tmp_path_factory.mktemp("empty"))
    (raw / "Adirondack-perfect/calib.txt").unlink()
    with pytest.raises(DavError, match=r"Adirondack-perfect/calib\.txt.*missing"):
        B2014.plan(raw)


def test_the_old_sets_keep_their_disparity(tmp_path):
    for seed, scene in enumerate(("cones", "teddy")):
        write_image(tmp_path / scene / "im2.png", seed=seed)
        steps = ramp(first=1, step=5, dtype=np.uint8)
        steps[2, 3] = 0
        write_steps(tmp_path / scene / "disp2.png", steps)
    frames = build(B2003, tmp_path)["test"]
    assert [frame.id for frame in frames] == ["cones", "teddy"]
    target = frames[1].target
    assert target.quantity == DISPARITY and target.values[5, 7] == 236 / 4
    assert np.argwhere(~target.valid).tolist() == [[2, 3]]
    disparity = stored_disparity(frames[1])["disparity"]
    assert disparity[5, 7] == 59 and disparity[0, 0] == 0.25  # nearer is larger
    (tmp_path / "cones/im2.png").unlink()
    with pytest.raises(DavError, match=r"cones/im2\.png.*missing"):
        B2003.plan(tmp_path)
    with pytest.raises(DavError, match=r"\*/disp2\.png"):
        B2003.plan(tmp_path / "teddy")


def test_a_real_motorcycle(extra_data, tmp_path):
    """It stands two metres away; the far wall not five."""
    shutil.copytree(extra_data / "samples/middlebury2014/Motorcycle", tmp_path / "Motorcycle")
    (frame,) = build(B2014, tmp_path)["test"]
    low, high = np.percentile(frame.target.values[frame.target.valid], [1, 99])
    assert 1.9 < low < 2.6 < 4 < high < 5.5
    lower, upper = (
        frame.target.values[rows][frame.target.valid[rows]]
        for rows in (slice(400, None), slice(0, 100))
    )
    assert np.median(lower) < np.median(upper)  # the floor is nearer than the wall
    assert stored(frame)["image"].shape[:2] == frame.target.values.shape


def test_a_real_teddy(extra_data, tmp_path):
    shutil.copytree(extra_data / "samples/middlebury2003/teddy", tmp_path / "teddy")
    (frame,) = build(B2003, tmp_path)["test"]
    assert frame.target.values.shape == (375, 450)
    low, high = np.percentile(frame.target.values[frame.target.valid], [1, 99])
    assert 12 < low < 20 < 40 < high < 54  # the published range is 12.5 … 52.75
    assert np.median(frame.target.values[300:]) > np.median(frame.target.values[:50])
