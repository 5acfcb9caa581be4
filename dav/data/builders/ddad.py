"""DDAD: driving in the United States and Japan with long-range lidar, 3,950 test images a camera.

Source: Guizilini et al., "3D Packing for Self-Supervised Monocular Depth Estimation" (CVPR 2020);
github.com/TRI-ML/DDAD. Licence: CC BY-NC-SA 4.0. Size: 257 GB, DDAD.tar, train and validation.
Below --raw stand, in the form of the authors' Dataset Governance Policy,

    ddad.json                                   scenes by split: 0 train, 1 val
    <scene>/scene_<hash>.json                   samples, their data, and where each sensor was
    <scene>/calibration/<hash>.json
    <scene>/rgb/CAMERA_0{1,5,6,7,8,9}/*.png     1936×1216
    <scene>/point_cloud/LIDAR/*.npz             `data`, [N, 4]: x, y, z, intensity

(or the same below ddad_train_val). `ddad` is the front camera, CAMERA_01, `ddad/all` all six. The
authors' test depth is not public: `test` here is their validation split, 50 scenes. Which of its
images Depth Anything's table uses is not known; the authors' own evaluation takes all 3,950.

A sample's points, up to 250 m away, are carried by the lidar's pose and the camera's into the
camera's frame and projected: planar depth in metres; pixels without a point are not valid. The
lidars stand elsewhere than the cameras, so at edges points behind an object shine through; the
car's own body, in the side cameras' view, is not masked (the masks that some papers use are not
part of the set).
"""

import functools
import json
from pathlib import Path

import numpy as np

from dav.data.formats import image_size, read_npz
from dav.data.frames import DEPTH_M, Builder, Skipped, Target
from dav.data.framing import frame_of
from dav.data.layout import require, require_pair
from dav.data.lidar import project
from dav.data.reading import read_bytes, reading
from dav.errors import DavError

VALIDATION = "1"
FRONT = ("CAMERA_01",)
SURROUND = tuple(f"CAMERA_0{number}" for number in (1, 5, 6, 7, 8, 9))
HINT = "unpack DDAD.tar (github.com/TRI-ML/DDAD) here"


def plan(raw):
    """Scene files of the validation split, relative to raw, as the test split."""
    raw = require(Path(raw), HINT)
    root = raw / "ddad_train_val" if (raw / "ddad_train_val").is_dir() else raw
    path = require(root / "ddad.json", HINT)
    with reading(path):
        names = json.loads(read_bytes(path))["scene_splits"][VALIDATION]["filenames"]
        scenes = [root / name for name in names]
    for scene in scenes:
        require_pair(path, scene, HINT)
    return {"test": [scene.relative_to(raw).as_posix() for scene in scenes]}


def read(raw, item, *, cameras):
    """A scene's frames, sample by sample."""
    path = Path(raw) / item
    for sample in _samples(path, cameras):
        points_m = _world_points(path, sample["lidar"])
        for camera, image, intrinsics in sample["images"]:
            yield _frame(path, camera, image, intrinsics, points_m)


def _samples(path, cameras):
    """A scene file's samples: {lidar: datum, images: [(camera, datum, intrinsics [3, 3]), …]}."""
    with reading(path):
        scene = json.loads(read_bytes(path))
        data = {datum["key"]: datum for datum in scene["data"]}
        return [_sample(path, sample, data, cameras) for sample in scene["samples"]]


def _sample(path, sample, data, cameras):
    named = {data[key]["id"]["name"].upper(): data[key]["datum"] for key in sample["datum_keys"]}
    missing = [name for name in ("LIDAR", *cameras) if name not in named]
    if missing:
        raise DavError(f"a sample has no {missing[0]}; it has {', '.join(named)}")
    calibrated = _calibration(path.parent / "calibration" / f"{sample['calibration_key']}.json")
    images = [(name, named[name]["image"], calibrated[name]) for name in cameras]
    return {"lidar": named["LIDAR"]["point_cloud"], "images": images}


@functools.lru_cache(maxsize=4)
def _calibration(path):
    """Intrinsics [3, 3] by sensor."""
    with reading(path):
        held = json.loads(read_bytes(path))
        names = (name.upper() for name in held["names"])
        return {
            name: np.array([[k["fx"], k["skew"], k["cx"]], [0, k["fy"], k["cy"]], [0, 0, 1]])
            for name, k in zip(names, held["intrinsics"], strict=True)
        }


def _world_points(scene, lidar):
    """A scan's points in the frame in which poses are given, float64 [N, 3]."""
    path = scene.parent / lidar["filename"]
    require_pair(scene, path, HINT)
    points_m = read_npz(path, "data")["data"]
    if points_m.ndim != 2 or points_m.shape[1] < 3:
        raise DavError(f"{path} has points {points_m.shape}, not [N, 4]")
    with reading(scene):
        rotation, origin_m = _pose(lidar["pose"])
        return points_m[:, :3].astype(np.float64) @ rotation.T + origin_m


def _frame(scene, camera, image, intrinsics, points_m):
    with reading(scene):
        path, claimed = scene.parent / image["filename"], (image["height"], image["width"])
        rotation, origin_m = _pose(image["pose"])
    size = image_size(require_pair(scene, path, HINT))
    if size != claimed:
        raise DavError(f"{path} is {size[1]}×{size[0]}, unlike what {scene} says: was it resized?")
    depth_m = project((points_m - origin_m) @ rotation, intrinsics, size)
    name = f"{scene.parent.name}/{camera}/{path.stem}"
    if not depth_m.any():
        return Skipped(name, "no lidar point falls into its view")
    return frame_of(name, path, scene, Target(DEPTH_M, depth_m, depth_m > 0))


def _pose(pose):
    """A sensor's pose → rotation [3, 3] and origin [3] in metres: world = rotation · point +
    origin."""
    w, x, y, z = (float(pose["rotation"][key]) for key in ("qw", "qx", "qy", "qz"))
    origin_m = np.array([float(pose["translation"][axis]) for axis in "xyz"])
    norm = w * w + x * x + y * y + z * z
    if not 0.5 < norm < 2 or not np.isfinite(origin_m).all():
        raise DavError(f"a pose has the quaternion {w, x, y, z} and the origin {origin_m}")
    vector = np.array([x, y, z])
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    square = w * w - vector @ vector
    rotation = (square * np.eye(3) + 2 * np.outer(vector, vector) + 2 * w * cross) / norm
    return rotation, origin_m


BUILDERS = tuple(
    Builder(
        name=name,
        kind="evaluation",
        plan=plan,
        read=functools.partial(read, cameras=cameras),
        counts={"test": 3950 * len(cameras)},
        items_per_shard=1,
    )
    for name, cameras in (("ddad", FRONT), ("ddad/all", SURROUND))
)
