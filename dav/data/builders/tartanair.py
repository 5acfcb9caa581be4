"""TartanAir: rendered flights through 18 environments, by day and night, in all weathers.

Source: Wang et al., IROS 2020 (arXiv 2003.14338), https://github.com/castacks/tartanair_tools
Licence: the tools are BSD; for the data see the project's site, theairlab.org/tartanair-dataset
Size: ≈ 3 TB with everything; only the left camera's image and depth archives are needed
Counts: 306,637 left images of 640×480, of which 13,595 are of the environment `amusement`
Obtain: python download_training.py --output-dir RAW --rgb --depth --only-left
    (tartanair_tools); unpack every zip file where it stands, or into one folder.

    RAW/[…/]<environment>/{Easy,Hard}/P000/image_left/000000_left.png
                                          /depth_left/000000_left_depth.npy

Map: .npy of float32, planar depth in metres (disparity in pixels would be 80 / depth). Sky is a
dome at a great, finite distance that differs between environments (≈ 10,000): 1000 m and beyond is
sky, which is supervised as disparity 0. 0, negative and NaN are unmeasured.
Splits: all "train"; none is published for this use.
Traps: in `amusement` a nearer dome, unseen in the image, hides the sky's depth
(castacks/tartanair_tools#46, DepthAnything/Depth-Anything-V2#144): left out. Frames that are black
but for a few pixels are left out. Both are reported. TartanAir V2 is another data set.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from dav.data.formats import read_npy, read_rgb
from dav.data.frames import DEPTH_M, Builder, Skipped, Target
from dav.data.framing import frame_of
from dav.data.pairing import folders_holding, paired_stems
from dav.errors import DavError

IMAGES = ("image_left", "_left.png")
MAPS = ("depth_left", "_left_depth.npy")
HINT = (
    "download the left images and depths of TartanAir (version 1) with "
    "https://github.com/castacks/tartanair_tools and unpack them so that there is "
    "ENVIRONMENT/{Easy,Hard}/P000/{image_left,depth_left}"
)
LEVELS = 6
SKY_FROM_M = 1000
LEFT_OUT = {"amusement": "the depth of its sky is wrong: an invisible dome stands before it"}
DARK = 8  # of 255
LIT_SHARE = 0.01  # with fewer brighter pixels there is nothing to learn from; ours


def plan(raw):
    """(trajectory's folder, frame's number as written)."""
    raw = Path(raw)
    trajectories = {}
    for folder in folders_holding(raw, {IMAGES[0], MAPS[0]}, LEVELS, HINT):
        name = _name(raw, folder)
        if name in trajectories:
            raise DavError(f"{name} stands twice below {raw}: {trajectories[name]} and {folder}")
        trajectories[name] = folder
    items = []
    for folder in trajectories.values():
        items += [(folder, stem) for stem in paired_stems(raw / folder, (IMAGES, MAPS), HINT)]
    return {"train": items}


def read(raw, item):
    """One left image."""
    folder, stem = item
    name = f"{_name(raw, folder)}/{stem}"
    environment = name.split("/")[0]
    if environment in LEFT_OUT:
        yield Skipped(name, f"environment {environment}: {LEFT_OUT[environment]}")
        return
    image_path = Path(raw) / folder / IMAGES[0] / (stem + IMAGES[1])
    map_path = Path(raw) / folder / MAPS[0] / (stem + MAPS[1])
    if (read_rgb(image_path).max(axis=2) > DARK).mean() < LIT_SHARE:
        yield Skipped(name, "its image is black")
        return
    depth_m = read_npy(map_path).astype(np.float32)
    sky = depth_m >= SKY_FROM_M
    target = Target(DEPTH_M, depth_m, np.isfinite(depth_m) & (depth_m > 0) & ~sky, sky)
    yield frame_of(name, image_path, map_path, target)


def _name(raw, folder):
    """environment/difficulty/trajectory."""
    parts = PurePosixPath(folder).parts[-3:]
    if len(parts) < 3 or parts[1] not in ("Easy", "Hard"):
        raise DavError(f"{Path(raw) / folder} is not in a folder ENVIRONMENT/Easy or Hard: {HINT}")
    return "/".join(parts)


BUILDERS = (
    Builder(
        name="tartanair",
        kind="labelled",
        plan=plan,
        read=read,
        counts={"train": 306_637},
        keep_images=False,
    ),
)
