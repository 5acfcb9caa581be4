"""Hypersim: 74,619 rendered indoor images of 457 scenes, with exact depth.

Source: Roberts et al., "Hypersim: A Photorealistic Synthetic Dataset for Holistic Indoor Scene
Understanding", ICCV 2021 (arXiv 2011.02523); https://github.com/apple/ml-hypersim. Licence:
CC BY-SA 3.0. Size: 1.9 TB in all; what is read here is a small part of it (the repository's
contrib/99991/download.py fetches single files out of the archives). Below --raw stand

    metadata_images_split_scene_v1.csv     of the repository's evermotion_dataset/analysis
    metadata_camera_parameters.csv         of the repository's contrib/mikeroberts3000
    ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg
    ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5   dataset `dataset`

Train 59,543, val 7,386, test 7,690: the rows of the first table that are in the public release.
To prepare a part of the scenes, delete the other rows.

The files are named depth and hold the **Euclidean distance** to the optical centre in metres, NaN
where there is nothing. Planar depth is distance · f / √(x² + y² + f²), f = 886.81 px, for the
ordinary camera. Many scenes were rendered with tilt-shift lenses: the optical axis misses the
image's centre, or the image plane is tilted, in ai_041_008 by 14 degrees. So every scene is
converted with its own matrix M of the second table, which takes (u, v, 1) to a ray (u to the
right, v upwards, both −1 … 1 from edge to edge). Depth is measured along the normal of the image
plane: that is what a picture's perspective shows. With n, the third row of M⁻¹ (the fourth of the
table's M_proj), it is distance / (|ray| · |n|). No scene is left out.
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from dav.data.containers import read_hdf5
from dav.data.frames import DEPTH_M, Builder, Target
from dav.data.framing import frame_of
from dav.data.layout import require, require_pair
from dav.data.reading import reading
from dav.errors import DavError

SPLITS = "metadata_images_split_scene_v1.csv"
CAMERAS = "metadata_camera_parameters.csv"
HINT = "see the docstring of dav/data/builders/hypersim.py for where each file comes from"
MATRIX = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]


def plan(raw):
    """(scene, camera, frame, the scene's matrix as nine floats) by official split, in its order."""
    require(Path(raw), HINT)
    matrices = read_matrices(Path(raw) / CAMERAS)
    splits = {"train": [], "val": [], "test": []}
    for scene, camera, frame, split in _published(Path(raw) / SPLITS):
        if split not in splits:
            raise DavError(f"{Path(raw) / SPLITS} names a split {split!r}; {HINT}")
        if scene not in matrices:
            raise DavError(f"{Path(raw) / CAMERAS} has no row for {scene}; {HINT}")
        splits[split].append((scene, camera, frame, *matrices[scene]))
    _check_complete(Path(raw), [item for items in splits.values() for item in items])
    return splits


def read(raw, item):
    """One frame, its distances made depth."""
    scene, camera, frame, *matrix = item
    image, path = _paths(Path(raw), scene, camera, frame)
    distance_m = read_hdf5(path, "dataset")
    if distance_m.ndim != 2:
        raise DavError(f"{path} holds an array of {distance_m.shape}, not a map")
    ratio = depth_over_distance(distance_m.shape, np.reshape(matrix, (3, 3)))
    depth_m = (distance_m.astype(np.float64) * ratio).astype(np.float32)
    valid = np.isfinite(depth_m) & (depth_m > 0)
    yield frame_of(f"{scene}/{camera}/{frame:04d}", image, path, Target(DEPTH_M, depth_m, valid))


def depth_over_distance(shape, matrix):
    """Planar depth over distance for every pixel, float64 [H, W], with M_cam_from_uv [3, 3]."""
    height, width = shape
    u = (np.arange(width) + 0.5) / width * 2 - 1
    v = 1 - (np.arange(height) + 0.5) / height * 2
    ray = matrix @ np.stack([*np.meshgrid(u, v), np.ones(shape)]).reshape(3, -1)
    normal = np.linalg.inv(matrix)[2]
    return (1 / (np.linalg.norm(ray, axis=0) * np.linalg.norm(normal))).reshape(shape)


def read_matrices(path):
    """M_cam_from_uv of each scene, as nine floats, row by row."""
    matrices = {}
    for row in _rows(require(path, HINT), ["scene_name", *MATRIX]):
        try:
            matrix = np.array([float(row[name]) for name in MATRIX])
            np.linalg.inv(matrix.reshape(3, 3))
        except (TypeError, ValueError) as error:
            raise DavError(f"{path}: no camera matrix for {row['scene_name']} ({error})") from None
        matrices[row["scene_name"]] = matrix.tolist()
    return matrices


def _published(path):
    """(scene, camera, frame number, split) of the images in the public release."""
    columns = ["scene_name", "camera_name", "frame_id", "split_partition_name"]
    for row in _rows(require(path, HINT), [*columns, "included_in_public_release"]):
        if row["included_in_public_release"] == "True":
            if not (row["frame_id"] or "").isdigit():
                raise DavError(f"{path} has a frame {row['frame_id']!r}, which is no number")
            scene, camera, frame, split = (row[name] for name in columns)
            yield scene, camera, int(frame), split


def _rows(path, columns):
    with reading(path), open(path, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise DavError(f"it has no column {missing[0]}; {HINT}")
        return list(table)


def _check_complete(raw, items):
    """Raises DavError for scenes and files that are not there, scenes first."""
    missing = Counter(scene for scene, *_ in items if not (raw / scene).is_dir())
    if missing:
        raise DavError(
            f"{raw} lacks {len(missing)} of {len({scene for scene, *_ in items})} scenes, "
            f"{min(missing)} first; download them, or delete their rows from {raw / SPLITS}"
        )
    for scene, camera, frame, *_ in items:
        image, depth = _paths(raw, scene, camera, frame)
        require_pair(require(image, f"it is listed in {SPLITS}; {HINT}"), depth, HINT)


def _paths(raw, scene, camera, frame):
    images = raw / scene / "images"
    return (
        images / f"scene_{camera}_final_preview" / f"frame.{frame:04d}.tonemap.jpg",
        images / f"scene_{camera}_geometry_hdf5" / f"frame.{frame:04d}.depth_meters.hdf5",
    )


COUNTS = {"train": 59543, "val": 7386, "test": 7690}
BUILDERS = (Builder("hypersim", "metric", plan, read, counts=COUNTS),)
