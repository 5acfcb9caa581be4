"""DIML/CVL RGB-D: rooms seen by Kinect v2, streets seen by stereo.

Source: Cho et al., arXiv 2110.11590, https://dimlrgbd.github.io
Licence: research and other non-commercial use, on the site's terms
Counts: the site counts 2 M frames; arXiv 2401.10891 trains on 927,000
Obtain: from the site, after its form; unpack the rooms below RAW/indoor, the streets below
    RAW/outdoor. The sample release, in another layout, is accepted too.

    full    RAW/indoor/<place>/<date>/<batch>/col/*_c.png, up_png/*_<suffix>.png
            RAW/outdoor/<place>/<batch>/left/*_left.png, depth/*_depth.png, conf/*_conf.png
    sample  RAW/indoor/[{train,test}/]{LR,HR}/<n>/color/*_c.png, depth_filled/*_depth_filled.png
            RAW/outdoor/[{train,test}/]{LR,HR}/outleft/*.png, depthmap/*.png, confidencemap/*.png

Map: 16-bit PNG, planar depth; 0 and what exceeds 65500 are unmeasured. Rooms are in millimetres.
Readers disagree about streets (most take millimetres, Metric3D steps of 5 mm), so their depth is
stored as known up to scale: it serves relative training and is nowhere taken for metres.
Streets have 8-bit confidences, 0 … 255: up to .9 of the range, the threshold of the authors'
technical report, is taken as unmeasured.
Splits: "train", and "test" for what stands in a folder `test` (the sample's); the full release has
none. Of images that stand in HR and LR, those in HR are used.
Traps: labels of streets are noisy stereo and are known to do harm as they are (arXiv 2406.09414,
table 6).

`diml` is both parts; `diml/indoor` and `diml/outdoor` are for those who have one.
"""

import functools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dav.data.formats import read_steps
from dav.data.frames import DEPTH, DEPTH_M, Builder, Target
from dav.data.framing import frame_of, read_depth_steps
from dav.data.layout import require
from dav.data.pairing import file_names, folders_holding, paired_stems
from dav.errors import DavError


@dataclass(frozen=True)
class Layout:
    """Folders of images, depths and confidences, each with the ending of its file names."""

    images: tuple
    depths: tuple  # None for the ending: whatever follows the last _
    confidences: tuple = ()


LAYOUTS = {
    "indoor": (
        Layout(("col", "_c.png"), ("up_png", None)),
        Layout(("color", "_c.png"), ("depth_filled", "_depth_filled.png")),
    ),
    "outdoor": (
        Layout(("left", "_left.png"), ("depth", "_depth.png"), ("conf", "_conf.png")),
        Layout(("outleft", ".png"), ("depthmap", ".png"), ("confidencemap", ".png")),
    ),
}
QUANTITIES = {"indoor": DEPTH_M, "outdoor": DEPTH}
HINT = (
    "unpack DIML (https://dimlrgbd.github.io) so that there is "
    "indoor/PLACE/DATE/BATCH/{col,up_png} and outdoor/PLACE/BATCH/{left,depth,conf}, or as in the "
    "sample release indoor/HR/N/{color,depth_filled} and "
    "outdoor/HR/{outleft,depthmap,confidencemap}"
)
LEVELS = 4
UNIT_M = 1e-3
LARGEST = 65500
CONFIDENCE = 0.9


def plan(raw, *, parts):
    """(part, number of its layout, folder, image's stem, ending of its depth's name) by split."""
    raw = Path(raw)
    splits = {"train": [], "test": []}
    for part in parts:
        for number, folder in _folders(raw, part):
            base, layout = raw / folder, LAYOUTS[part][number]
            ending = layout.depths[1] or _ending(base / layout.depths[0])
            kinds = [layout.images, (layout.depths[0], ending), layout.confidences]
            split = "test" if "test" in PurePosixPath(folder).parts[1:3] else "train"
            found = paired_stems(base, [kind for kind in kinds if kind], HINT)
            splits[split] += [(part, number, folder, stem, ending) for stem in found]
    return {split: items for split, items in splits.items() if items}


def read(raw, item):
    """One image."""
    part, number, folder, stem, ending = item
    base, layout = Path(raw) / folder, LAYOUTS[part][number]
    image_path = base / layout.images[0] / (stem + layout.images[1])
    map_path = base / layout.depths[0] / (stem + ending)
    steps = read_depth_steps(map_path)
    valid = (steps > 0) & (steps <= LARGEST)
    if layout.confidences:
        valid &= _is_sure(base / layout.confidences[0] / (stem + layout.confidences[1]), steps)
    target = Target(QUANTITIES[part], steps * np.float32(UNIT_M), valid, unit=UNIT_M)
    yield frame_of(f"{folder}/{stem}", image_path, map_path, target)


def _folders(raw, part):
    """(number of its layout, folder relative to raw) of all that hold images, without the LR
    doubles of HR."""
    layouts = LAYOUTS[part]
    names = {layout.images[0] for layout in layouts} | {layout.depths[0] for layout in layouts}
    below = folders_holding(require(raw / part, HINT), names, LEVELS, HINT)
    paths = {PurePosixPath(part) / folder for folder in below}
    for path in sorted(paths):
        if "LR" in path.parts and _in_high_resolution(path) in paths:
            continue
        present = file_names(raw / path, HINT)
        number = next(n for n, each in enumerate(layouts) if present & _folder_names(each))
        yield number, path.as_posix()


def _in_high_resolution(path):
    return PurePosixPath(*("HR" if name == "LR" else name for name in path.parts))


def _folder_names(layout):
    return {layout.images[0], layout.depths[0]}


def _ending(folder):
    """What follows the stem in the names of a folder's maps: it differs between releases."""
    names = sorted(name for name in file_names(folder, HINT) if name.endswith(".png"))
    if not names or "_" not in names[0]:
        raise DavError(f"{folder} holds no *_<suffix>.png: {HINT}")
    return "_" + names[0].rpartition("_")[2]


def _is_sure(path, steps):
    """Where the confidence is beyond the threshold: bool [H, W]."""
    confidence = read_steps(path)
    if confidence.shape != steps.shape:
        raise DavError(f"{path} is {confidence.shape} and its depth {steps.shape}")
    return confidence > CONFIDENCE * np.iinfo(confidence.dtype).max


BUILDERS = tuple(
    Builder(
        name=name,
        kind="labelled",
        sky_unmarked="outdoor" in parts,
        plan=functools.partial(plan, parts=parts),
        read=read,
        counts=counts,
        keep_images=False,
    )
    for name, parts, counts in (
        ("diml", ("indoor", "outdoor"), {"train": 927_000}),  # rounded as in arXiv 2401.10891
        ("diml/indoor", ("indoor",), {}),
        ("diml/outdoor", ("outdoor",), {}),
    )
)
