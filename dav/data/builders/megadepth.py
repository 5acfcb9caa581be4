"""MegaDepth v1: tourists' photographs of landmarks, depth by structure from motion.

Source: Li and Snavely, CVPR 2018 (arXiv 1804.00607), https://www.cs.cornell.edu/projects/megadepth
Licence: see the site; the photographs are their owners', under the terms of each
Size: 199 GB (MegaDepth_v1.tar.gz)
Counts: 196 scenes, ≈ 130,000 images, ≈ 30,000 of them with ordinal maps only; arXiv 2401.10891
    counts 128,000
Obtain: MegaDepth_v1.tar.gz from the site; unpack it. The SfM models are not needed.

    RAW/[phoenix/S6/zl548/MegaDepth_v1/]<scene>/dense<k>/imgs/*.jpg
                                                        /depths/<stem>.h5  (dataset "depth")

Map: float, planar depth up to scale in each scene; 0 is unmeasured. The depth of sky is arbitrary
and it is not marked: give sky masks. People are often wrong or missing.
Splits: all "train"; none is published for this use.
Traps: maps with negative values are ordinal labels, no depths: left out, not clipped. Images
without a map are left out. Both are reported. Reconstruction leaves outliers, and one speck near
the camera would squeeze all other disparities: what lies outside the .5 … 99.5 percentile of a
map's depths is taken as unmeasured (our choice). Where image and map differ by up to 8 pixels in
height or width, as rounding leaves them, the map is resized to the image, nearest neighbour.
"""

import os
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from dav.data.containers import read_hdf5
from dav.data.formats import image_size
from dav.data.frames import DEPTH, Builder, Skipped, Target
from dav.data.framing import frame_of
from dav.data.pairing import file_names, folders_holding
from dav.errors import DavError

IMAGES, MAPS = "imgs", "depths"
SUFFIXES = (".jpg", ".jpeg", ".png")  # in any case
HINT = (
    "unpack MegaDepth_v1.tar.gz (https://www.cs.cornell.edu/projects/megadepth) so that there is "
    "SCENE/dense0/{imgs,depths}"
)
LEVELS = 7
ROUNDING_PX = 8
PERCENTILES = (0.5, 99.5)


def plan(raw):
    """(folder, image's name, map's name or "")."""
    raw = Path(raw)
    folders = folders_holding(raw, {IMAGES, MAPS}, LEVELS, HINT)
    names = {}
    for folder in folders:
        if (name := _name(raw, folder)) in names:
            raise DavError(f"{name} stands twice below {raw}: {names[name]} and {folder}")
        names[name] = folder
    return {"train": [item for folder in folders for item in _items(raw, folder)]}


def read(raw, item):
    """One image."""
    folder, image, depth_file = item
    name = f"{_name(raw, folder)}/{os.path.splitext(image)[0]}"
    if not depth_file:
        yield Skipped(name, "it has no depth map")
        return
    image_path = Path(raw) / folder / IMAGES / image
    map_path = Path(raw) / folder / MAPS / depth_file
    depth = read_hdf5(map_path, "depth").astype(np.float32)
    if depth.ndim != 2:
        raise DavError(f"{map_path}: its depth has the shape {depth.shape}, not height and width")
    if (depth < 0).any():
        yield Skipped(name, "its map is ordinal (it has negative values)")
        return
    depth = fit(depth, image_size(image_path))
    yield frame_of(name, image_path, map_path, Target(DEPTH, depth, inliers(depth)))


def inliers(depth):
    """Where depth [H, W] is finite, positive and within the percentiles of what is: bool [H, W]."""
    valid = np.isfinite(depth) & (depth > 0)
    if not valid.any():
        return valid
    low, high = (
        np.percentile(depth[valid], percentile, method=method)  # whole samples: few lose none
        for percentile, method in zip(PERCENTILES, ("lower", "higher"), strict=True)
    )
    return valid & (depth >= low) & (depth <= high)


def fit(depth, size):
    """Depth in the image's size (height, width), if it differs by no more than rounding."""
    off = max(abs(a - b) for a, b in zip(depth.shape, size, strict=True))
    if not 0 < off <= ROUNDING_PX:
        return depth
    return cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST)


def _items(raw, folder):
    images = {}
    for image in sorted(file_names(raw / folder / IMAGES, HINT)):
        stem, suffix = os.path.splitext(image)
        if suffix.lower() in SUFFIXES and images.setdefault(stem, image) != image:
            raise DavError(f"{raw / folder / IMAGES} holds {images[stem]} and {image}: keep one")
    has_maps = (raw / folder / MAPS).is_dir()
    maps = file_names(raw / folder / MAPS, HINT) if has_maps else set()
    maps = {os.path.splitext(name)[0] for name in maps if name.endswith(".h5")}
    if alone := sorted(maps - set(images)):
        raise DavError(
            f"{raw / folder / MAPS / alone[0]}.h5 has no image, nor have {len(alone) - 1} others: "
            f"a half-finished download? {HINT}"
        )
    return [(folder, image, f"{stem}.h5" if stem in maps else "") for stem, image in images.items()]


def _name(raw, folder):
    """scene/dense<k>."""
    parts = PurePosixPath(folder).parts[-2:]
    if len(parts) < 2:
        raise DavError(f"{Path(raw) / folder} is not in the folder of a scene: {HINT}")
    return "/".join(parts)


BUILDERS = (
    Builder(
        name="megadepth",
        kind="labelled",
        sky_unmarked=True,
        plan=plan,
        read=read,
        counts={"train": 128_000},  # rounded as in arXiv 2401.10891
    ),
)
