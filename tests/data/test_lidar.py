"""Points → depth maps, by hand and against the projections that came with real scans."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dav.data import formats, lidar
from dav.errors import DavError

INTRINSICS = np.array([[100, 0, 2], [0, 50, 1], [0, 0, 1]])


def test_a_point_lands_in_its_pixel():
    # x right: column 2 + 100 · 0.02 = 4; y down: row 1 + 50 · 0.04 = 3
    depth_m = lidar.project(np.array([[0.2, 0.4, 10]]), INTRINSICS, (4, 6))
    assert depth_m.dtype == np.float32
    assert depth_m[3, 4] == 10 and np.count_nonzero(depth_m) == 1


def test_nearest_wins_in_any_order():
    points_m = np.array([[0, 0, 7], [0, 0, 5], [0, 0, 6.0]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        depth_m = lidar.project(points_m[order], INTRINSICS, (4, 6))
        assert depth_m[1, 2] == 5 and np.count_nonzero(depth_m) == 1


def test_what_is_not_seen_is_left_out():
    points_m = np.array(
        [
            [0, 0, -5],
            [0, 0, 0],
            [np.nan, 0, 5],
            [0, 0, np.inf],
            [-0.11, 0, 4],  # column −0.75
            [0.15, 0, 4],  # column 5.75
            [0, -0.13, 4],  # row −0.6
            [0, 0.21, 4],  # row 3.6
            [1e300, 1, 1e-300],
        ]
    )
    assert not lidar.project(points_m, INTRINSICS, (4, 6)).any()
    assert not lidar.project(np.zeros((0, 3)), INTRINSICS, (4, 6)).any()


def test_a_pixel_reaches_half_a_pixel_around_its_centre():
    points_m = np.array([[-0.099, 0, 4], [0.139, 0, 4]])  # columns −0.475 and 5.475
    assert list(np.flatnonzero(lidar.project(points_m, INTRINSICS, (4, 6))[1])) == [0, 5]


@given(st.integers(0, 5), st.integers(0, 3), st.floats(0.1, 200))
def test_a_pixel_seen_at_any_depth_comes_back(column, row, depth_m):
    point_m = np.linalg.inv(INTRINSICS) @ [column, row, 1] * depth_m
    projected = lidar.project(point_m[None], INTRINSICS, (4, 6))
    assert projected[row, column] == np.float32(depth_m)
    assert np.count_nonzero(projected) == 1


def test_shapes_are_checked():
    with pytest.raises(DavError, match=r"\[N, 3\]"):
        lidar.project(np.zeros((5, 4)), INTRINSICS, (4, 6))
    with pytest.raises(DavError, match=r"\[3, 3\]"):
        lidar.project(np.zeros((5, 3)), np.eye(4), (4, 6))


def test_velodyne(tmp_path):
    path = tmp_path / "0.bin"
    stored = np.arange(12, dtype=np.float32).reshape(3, 4)
    path.write_bytes(stored.astype("<f4").tobytes())
    np.testing.assert_array_equal(lidar.read_velodyne(path), stored)
    path.write_bytes(stored.tobytes()[:-4])
    with pytest.raises(DavError, match="0.bin.*44 bytes are no whole number of points"):
        lidar.read_velodyne(path)
    stored[1, 2] = np.nan
    path.write_bytes(stored.tobytes())
    with pytest.raises(DavError, match="0.bin.*not finite"):
        lidar.read_velodyne(path)
    with pytest.raises(DavError, match="1.bin.*missing"):
        lidar.read_velodyne(tmp_path / "1.bin")


def rigid(rotation, translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def moved(points_m, matrix):
    return points_m[:, :3].astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize("name", ["0000000000", "0000000015", "0000000030"])
def test_real_kitti_scan_gives_the_shipped_projection(extra_data, name):
    folder = extra_data / "samples/kitti_raw"
    calibration = json.loads((folder / "calib.json").read_text())
    to_camera = rigid(calibration["R_rect_00"]) @ np.vstack(
        [calibration["Tr_velo_to_cam"], [0, 0, 0, 1]]
    )
    points_m = moved(lidar.read_velodyne(folder / f"velodyne_points/{name}.bin"), to_camera)
    expected_m = formats.read_steps(folder / f"proj_depth/image_02/{name}.png") / 256
    intrinsics = np.array(calibration["P_rect_02"])[:, :3]
    depth_m = lidar.project(points_m, intrinsics, expected_m.shape)
    np.testing.assert_array_equal(depth_m > 0, expected_m > 0)
    np.testing.assert_allclose(depth_m, expected_m, atol=1 / 256)


def pose(entry):
    """A DGP pose, a unit quaternion and a translation → 4 × 4."""
    w, x, y, z = (entry["rotation"]["q" + axis] for axis in "wxyz")
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return rigid(rotation, [entry["translation"][axis] for axis in "xyz"])


@pytest.mark.parametrize("camera", ["CAMERA_01", "CAMERA_05", "CAMERA_06"])
def test_real_ddad_scan_gives_the_shipped_projection(extra_data, camera):
    folder = extra_data / "samples/ddad"
    scene = folder / "dgp_raw/scene_01"
    (calibration,) = (json.loads(path.read_text()) for path in (scene / "calibration").iterdir())
    (description,) = (json.loads(path.read_text()) for path in scene.glob("scene_*.json"))
    data = [next(iter(entry["datum"].values())) for entry in description["data"]]
    poses = {entry["filename"]: pose(entry["pose"]) for entry in data}
    scan = "point_cloud/LIDAR/15569195940203574.npz"
    view = f"rgb/{camera}/15569195940415242.jpg"
    to_camera = np.linalg.inv(poses[view]) @ poses[scan]
    points_m = moved(formats.read_npz(scene / scan, "data")["data"], to_camera)
    lens = calibration["intrinsics"][calibration["names"].index(camera)]
    intrinsics = [[lens["fx"], lens["skew"], lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]]
    name = f"scene_01/{camera}_15569195940415242_lidar.png"
    expected_m = formats.read_steps(folder / name) / 256
    depth_m = lidar.project(points_m, intrinsics, expected_m.shape)
    np.testing.assert_array_equal(depth_m > 0, expected_m > 0)
    np.testing.assert_allclose(depth_m, expected_m, atol=1 / 256)
