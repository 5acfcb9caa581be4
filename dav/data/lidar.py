"""Laser points → depth maps."""

import numpy as np

from dav.data.reading import read_bytes, reading
from dav.errors import DavError

VELODYNE_BYTES = 16  # float32 x, y, z, reflectance


def read_velodyne(path):
    """A KITTI scan (cvlibs.net/datasets/kitti, raw data) → float32 [N, 4]: x forward, y left, z up
    in metres, and reflectance 0 to 1. Raises DavError, with the file's name, for anything else."""
    with reading(path):
        content = read_bytes(path)
        if len(content) % VELODYNE_BYTES:
            raise DavError(f"its {len(content)} bytes are no whole number of points: truncated?")
        points = np.frombuffer(content, "<f4").reshape(-1, 4).astype(np.float32)
        if not np.isfinite(points).all():
            raise DavError("it has points that are not finite: it is no velodyne scan, or damaged")
        return points


def project(points_m, intrinsics, size):
    """Points in a camera's frame → its planar depth in metres, float32 [H, W], 0 = no return.

    points_m: [N, 3], x right, y down, z forward. intrinsics: [3, 3]. size: (H, W). The centre of
    the first pixel is (0, 0), as in KITTI's and DDAD's calibrations; each point falls into the
    pixel whose centre is next to it; of several the nearest counts. Points behind the camera,
    outside the image or not finite are left out.
    """
    points_m, intrinsics = np.asarray(points_m, np.float64), np.asarray(intrinsics, np.float64)
    if points_m.ndim != 2 or points_m.shape[1] != 3 or intrinsics.shape != (3, 3):
        raise DavError(
            f"lidar points {points_m.shape} with intrinsics {intrinsics.shape} cannot be "
            "projected; they must be [N, 3] and [3, 3]"
        )
    height, width = size
    points_m = points_m[np.isfinite(points_m).all(axis=1) & (points_m[:, 2] > 0)]
    with np.errstate(over="ignore"):
        column, row = np.floor(points_m @ intrinsics[:2].T / points_m[:, 2:] + 0.5).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = row[inside].astype(int), column[inside].astype(int)
    depth_m = np.full(size, np.inf, np.float32)
    np.minimum.at(depth_m, place, points_m[inside, 2].astype(np.float32))
    depth_m[np.isinf(depth_m)] = 0
    return depth_m
