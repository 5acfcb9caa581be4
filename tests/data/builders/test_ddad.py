import json
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import build, stored, write_image

from dav.data.builders import ddad
from dav.errors import DavError

FRONT, SURROUND = ddad.BUILDERS
SIZE = (6, 8)
CAMERAS = [f"CAMERA_0{number}" for number in (1, 5, 6, 7, 8, 9)]
FOCAL_PX = 4.0
# x forward, y left, z up (a vehicle) seen with x right, y down, z forward (a camera)
FORWARD = {"qw": 0.5, "qx": -0.5, "qy": 0.5, "qz": -0.5}
TURNED_LEFT = {"qw": 0.5**0.5, "qx": 0.0, "qy": 0.0, "qz": 0.5**0.5}
LIDAR_AT = {"x": 100.0, "y": -50.0, "z": 2.0}
CAMERA_AT = {"x": 101.0, "y": -50.0, "z": 2.0}


def pose(rotation, translation):
    return {"rotation": rotation, "translation": translation}


def datum(name, sample, **what):
    return {"key": f"{name}-{sample}", "id": {"name": name}, "datum": what}


def camera_datum(name, sample, rotation=FORWARD):
    image = {"filename": f"rgb/{name}/{sample}.png", "height": SIZE[0], "width": SIZE[1]}
    return datum(name, sample, image=image | {"pose": pose(rotation, CAMERA_AT)})


def write_scene(raw, name, samples):
    """A scene of `samples`: lists of points in the lidar's frame. The lidar stands a metre behind
    the cameras, all of which look forward except the last, which looks left."""
    folder, data, listed = raw / name, [], []
    left = multiply(TURNED_LEFT, FORWARD)
    for number, points in enumerate(samples):
        cloud = {"filename": f"point_cloud/LIDAR/{number}.npz"}
        cloud["pose"] = pose({"qw": 1, "qx": 0, "qy": 0, "qz": 0}, LIDAR_AT)
        made = [datum("LIDAR", number, point_cloud=cloud)]
        made += [camera_datum(camera, number) for camera in CAMERAS[:-1]]
        made += [camera_datum(CAMERAS[-1], number, left)]
        (folder / "point_cloud/LIDAR").mkdir(parents=True, exist_ok=True)
        intensity = np.ones((len(points), 1))
        np.savez(folder / cloud["filename"], data=np.hstack([points, intensity]))
        for camera in CAMERAS:
            write_image(folder / f"rgb/{camera}/{number}.png", SIZE, seed=number)
        data += made
        listed.append({"calibration_key": "c", "datum_keys": [entry["key"] for entry in made]})
    (folder / f"scene_{name}.json").write_text(json.dumps({"data": data, "samples": listed}))
    write_calibration(folder)
    return f"{name}/scene_{name}.json"


def write_calibration(folder):
    known = {"fx": FOCAL_PX, "fy": FOCAL_PX, "cx": 4.0, "cy": 3.0, "skew": 0.0}
    names = ["LIDAR", *CAMERAS]
    (folder / "calibration").mkdir(exist_ok=True)
    held = {"names": names, "intrinsics": [known] * len(names)}
    (folder / "calibration/c.json").write_text(json.dumps(held))


def multiply(a, b):
    """The rotation b, then a."""
    w, x, y, z = (a[key] for key in ("qw", "qx", "qy", "qz"))
    p, q, r, s = (b[key] for key in ("qw", "qx", "qy", "qz"))
    return {
        "qw": w * p - x * q - y * r - z * s,
        "qx": w * q + x * p + y * s - z * r,
        "qy": w * r - x * s + y * p + z * q,
        "qz": w * s + x * r - y * q + z * p,
    }


POINTS = [
    [11.0, 0.0, 0.0],  # straight ahead, 10 m before the camera: the centre, (3, 4)
    [11.0, 5.0, 0.0],  # 5 m to the left: column 2
    [11.0, 0.0, 2.5],  # 2.5 m up: row 2
    [21.0, 0.0, 0.0],  # hidden behind the first
    [1.0, 8.0, 2.0],  # 8 m to the left of the camera, 2 m up
    [-9.0, 0.0, 0.0],  # behind
]


@pytest.fixture
def raw(tmp_path):
    scenes = [write_scene(tmp_path, f"00015{k}", [POINTS, POINTS[:2]]) for k in range(3)]
    splits = {"0": {"filenames": scenes[:1]}, "1": {"filenames": scenes[1:]}}
    (tmp_path / "ddad.json").write_text(json.dumps({"scene_splits": splits}))
    return tmp_path


def test_the_validation_scenes_front_camera(raw):
    found = build(FRONT, raw)
    assert [frame.id for frame in found["test"]] == [
        f"00015{scene}/CAMERA_01/{sample}" for scene in (1, 2) for sample in (0, 1)
    ]
    assert list(found) == ["test"]
    assert found["test"][0].image == (raw / "000151/rgb/CAMERA_01/0.png").read_bytes()


def test_points_are_carried_by_the_poses_into_the_camera(raw):
    frame = build(FRONT, raw)["test"][0]
    example = stored(frame)
    expected = np.zeros(SIZE)
    expected[3, 4] = expected[3, 2] = expected[2, 4] = 10
    np.testing.assert_allclose(example["depth_m"], expected, rtol=1e-4)
    np.testing.assert_array_equal(example["valid"], expected > 0)


def test_a_turned_lidar_sees_the_same_points(raw):
    before = [frame.target.values for frame in build(FRONT, raw)["test"][:2]]
    path = raw / FRONT.plan(raw)["test"][0]
    scene = json.loads(path.read_text())
    for sample, points in enumerate((POINTS, POINTS[:2])):
        turned = [
            [y, -x, z, 1] for x, y, z in points
        ]  # a quarter to the left, so seen to the right
        np.savez(path.parent / f"point_cloud/LIDAR/{sample}.npz", data=np.array(turned))
    for entry in scene["data"]:
        if entry["id"]["name"] == "LIDAR":
            entry["datum"]["point_cloud"]["pose"]["rotation"] = TURNED_LEFT
    path.write_text(json.dumps(scene))
    after = [frame.target.values for frame in build(FRONT, raw)["test"][:2]]
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_all_six_cameras_each_with_its_own_pose(raw):
    frames = build(SURROUND, raw)["test"]
    assert len(frames) == 6 * 2 * 2
    assert [frame.id.split("/")[1] for frame in frames[:6]] == CAMERAS
    left = frames[5].target
    assert np.argwhere(left.valid).tolist() == [[2, 4]]  # 8 m away, 2 m up: row 3 - 4·2/8
    assert left.values[2, 4] == pytest.approx(8)


def test_a_camera_without_points_is_skipped(raw):
    entries = [entry for item in SURROUND.plan(raw)["test"] for entry in SURROUND.read(raw, item)]
    assert entries[11].id == "000151/CAMERA_09/1" and "no lidar point" in entries[11].reason


def test_also_below_ddad_train_val(raw, tmp_path_factory):
    moved = tmp_path_factory.mktemp("ddad")
    shutil.copytree(raw, moved / "ddad_train_val")
    assert FRONT.plan(moved)["test"][0] == "ddad_train_val/000151/scene_000151.json"
    assert len(build(FRONT, moved)["test"]) == 4


def test_what_is_missing_or_does_not_fit_is_named(raw):
    (scene, _) = FRONT.plan(raw)["test"]
    write_image(raw / "000151/rgb/CAMERA_01/0.png", (8, 6))
    with pytest.raises(DavError, match="CAMERA_01/0.png is 6×8, unlike what .*scene_000151.json"):
        list(FRONT.read(raw, scene))
    (raw / "000151/rgb/CAMERA_01/0.png").unlink()
    with pytest.raises(DavError, match="CAMERA_01/0.png, which belongs to"):
        list(FRONT.read(raw, scene))
    (raw / "000151/point_cloud/LIDAR/0.npz").unlink()
    with pytest.raises(DavError, match="LIDAR/0.npz, which belongs to"):
        list(FRONT.read(raw, scene))
    (raw / scene).unlink()
    with pytest.raises(DavError, match="scene_000151.json, which belongs to .*ddad.json"):
        FRONT.plan(raw)
    with pytest.raises(DavError, match="ddad.json is missing: unpack DDAD.tar"):
        FRONT.plan(raw / "000151")


def test_a_scene_without_a_camera_or_lidar_is_named(raw):
    (item, _) = FRONT.plan(raw)["test"]
    content = (raw / item).read_text()
    for name in ("CAMERA_01", "LIDAR"):
        (raw / item).write_text(content.replace(f'"name": "{name}"', '"name": "RADAR"'))
        with pytest.raises(DavError, match=f"{item}: a sample has no {name}"):
            list(FRONT.read(raw, item))


def test_fuzzed_scenes_give_frames_or_a_daverror(raw):
    (item, _) = FRONT.plan(raw)["test"]
    path, random = raw / item, np.random.default_rng(0)
    content, errors = path.read_bytes(), 0
    for _ in range(200):
        mutated = bytearray(content[: random.integers(1, len(content) + 1)])
        if random.random() < 0.7:
            mutated = bytearray(content)
        for place in random.integers(0, len(mutated), random.integers(1, 6)):
            mutated[place] = random.integers(32, 127)
        path.write_bytes(mutated)
        try:
            list(FRONT.read(raw, item))
        except DavError as error:
            errors += str(raw) in str(error)
    assert errors > 50


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.square(q).sum() > 0.6)
)
def test_a_pose_is_a_rotation_and_turns_as_its_quaternion(quaternion):
    norm = np.square(quaternion).sum() ** 0.5
    w, x, y, z = (value / norm for value in quaternion)
    turned = pose(dict(zip(("qw", "qx", "qy", "qz"), (w, x, y, z), strict=True)), LIDAR_AT)
    rotation, origin_m = ddad._pose(turned)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(origin_m, [100, -50, 2])
    point, conjugate = {"qw": 0, "qx": 1.0, "qy": 2.0, "qz": 3.0}, turned["rotation"] | {}
    conjugate |= {key: -conjugate[key] for key in ("qx", "qy", "qz")}
    moved = multiply(multiply(turned["rotation"], point), conjugate)
    expected = [moved[key] for key in ("qx", "qy", "qz")]
    np.testing.assert_allclose(rotation @ [1, 2, 3], expected, atol=1e-12)


def test_a_real_scene_as_it_was_projected(extra_data, tmp_path):
    """DGP's own test scene, whose last sample has its points: three cameras."""
    samples = extra_data / "samples" / "ddad"
    source, scene = samples / "dgp_raw" / "scene_01", tmp_path / "scene_01"
    shutil.copytree(source, scene, copy_function=shutil.copyfile)
    (item,) = scene.glob("scene_*.json")
    held = json.loads(item.read_text())
    item.write_text(json.dumps(held | {"samples": held["samples"][2:]}))
    cameras = ("CAMERA_01", "CAMERA_05", "CAMERA_06")
    for camera in cameras:
        (scene / "rgb" / camera).mkdir(parents=True)
        name = "15569195940415242.jpg"
        shutil.copyfile(samples / "scene_01" / f"{camera}_{name}", scene / "rgb" / camera / name)
    frames = list(ddad.read(tmp_path, item.relative_to(tmp_path), cameras=cameras))
    for camera, frame in zip(cameras, frames, strict=True):
        projected = samples / "scene_01" / f"{camera}_15569195940415242_lidar.png"
        steps = cv2.imread(str(projected), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(frame.target.valid, steps > 0)
        np.testing.assert_allclose(frame.target.values, steps / 256, atol=1 / 500)
        assert stored(frame)["depth_m"].shape == (1216, 1936)
