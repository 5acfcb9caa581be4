"""BlendedMVS and its superset BlendedMVG: photographs blended with renderings of 3D models.

Source: Yao et al., CVPR 2020 (arXiv 1911.10127), https://github.com/YoYo000/BlendedMVS
Licence: CC BY 4.0
Size: low resolution, 768×576: BlendedMVS 27.5 GB, + 81.5 GB, ++ 80.0 GB; together BlendedMVG
Counts: 113 scenes, 17 K images in BlendedMVS; 502 scenes, 115 K images in BlendedMVG
Obtain: download the three low-resolution sets from the links in the README and unpack them into
    one folder; any of them alone will do.

    RAW/[…/]<scene: 24 hexadecimal digits>/blended_images/00000000.jpg, 00000000_masked.jpg
                                          /rendered_depth_maps/00000000.pfm
                                          /cams/00000000_cam.txt  (not used)
    RAW/BlendedMVS_list.txt, BlendedMVS+_list.txt, BlendedMVS++_list.txt  (held against the
        scenes where they are there)

Map: PFM of float32, rows from the bottom up; planar depth, up to scale in each scene. 0 is
unmeasured: background, sky and holes of the models. Sky is not marked.
Splits: "val" is the README's validation_list.txt, 7 scenes; "train" all others.
Traps: `_masked.jpg` are the same images with the background cut out; a few maps are empty.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from dav.data.formats import read_pfm
from dav.data.frames import DEPTH, Builder, Target
from dav.data.framing import frame_of
from dav.data.pairing import folders_holding, paired_stems
from dav.errors import DavError

IMAGES = ("blended_images", ".jpg")
MAPS = ("rendered_depth_maps", ".pfm")
HINT = (
    "unpack BlendedMVS, BlendedMVS+ and BlendedMVS++ (low resolution, "
    "https://github.com/YoYo000/BlendedMVS) so that there is SCENE/blended_images and "
    "SCENE/rendered_depth_maps"
)
SUBSETS = ("BlendedMVS_list.txt", "BlendedMVS+_list.txt", "BlendedMVS++_list.txt")
VALIDATION = {
    "5b7a3890fc8fcf6781e2593a",
    "5c189f2326173c3a09ed7ef3",
    "5b950c71608de421b1e7318f",
    "5a6400933d809f1d8200af15",
    "59d2657f82ca7774b1ec081d",
    "5ba19a8a360c7c30c1c169df",
    "59817e4a1bd4b175e7038d19",
}


def plan(raw):
    """(scene's folder, image's stem) by split."""
    raw = Path(raw)
    scenes = _scenes(raw)
    _check_lists(raw, scenes)
    splits = {"train": [], "val": []}
    for scene, folder in sorted(scenes.items()):
        found = paired_stems(raw / folder, (IMAGES, MAPS), HINT, skip=("_masked",))
        splits["val" if scene in VALIDATION else "train"] += [(folder, stem) for stem in found]
    return {split: items for split, items in splits.items() if items}


def read(raw, item):
    """One image."""
    folder, stem = item
    base = Path(raw) / folder
    map_path = base / MAPS[0] / (stem + MAPS[1])
    depth = read_pfm(map_path)
    if depth.ndim != 2:
        raise DavError(f"{map_path} has three channels: it is not a depth map of BlendedMVS")
    target = Target(DEPTH, depth, np.isfinite(depth) & (depth > 0))
    image_path = base / IMAGES[0] / (stem + IMAGES[1])
    yield frame_of(f"{base.name}/{stem}", image_path, map_path, target)


def _scenes(raw):
    """Scene → its folder."""
    scenes = {}
    for folder in folders_holding(raw, {IMAGES[0], MAPS[0]}, 3, HINT):
        scene = PurePosixPath(folder).name or Path(raw).name
        if scene in scenes:
            raise DavError(f"scene {scene} stands twice below {raw}: {scenes[scene]} and {folder}")
        scenes[scene] = folder
    return scenes


def _check_lists(raw, scenes):
    """A subset of which some scenes are there has all that its list names."""
    for name in SUBSETS:
        path = raw / name
        listed = (
            set(path.read_text(encoding="utf-8", errors="replace").split())
            if path.is_file()
            else set()
        )
        missing = sorted(listed - set(scenes))
        if missing and len(missing) < len(listed):
            raise DavError(
                f"{raw / missing[0]} is missing, and {len(missing) - 1} other scenes of {path}: a "
                f"half-finished download? {HINT}"
            )


BUILDERS = (
    Builder(
        name="blended_mvs",
        kind="labelled",
        sky_unmarked=True,
        plan=plan,
        read=read,
        counts={"train": 115_000},  # the whole of BlendedMVG, rounded as in arXiv 2401.10891
    ),
)
