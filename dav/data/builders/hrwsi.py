"""HRWSI: stereo photographs from the web, with disparities computed by optical flow.

Source: Xian et al., "Structure-Guided Ranking Loss for Single Image Depth Prediction", CVPR 2020,
    https://github.com/KexianHust/Structure-Guided-Ranking-Loss
Licence: research only
Counts: train 20,378, val 400
Obtain: the archive HR-WSI from the link in that repository (a cloud drive); unpack it.

    RAW/[HR-WSI/]{train,val}/imgs/*.jpg, gts/*.png, valid_masks/*.png

Map: 8-bit PNG of disparity, larger is nearer, up to scale and shift in each image. Never inverted.
A pixel is measured where its mask is not 0; consistency checks and much sky are masked out. A
measured disparity may be 0, the farthest of its image: values are stored with 1 added, which their
unknown shift allows and which keeps them apart from sky. Nothing is evaluated against them, since
depth would follow from the number that is added.
Splits: as published.
"""

from pathlib import Path

import numpy as np

from dav.data.formats import read_steps
from dav.data.frames import DISPARITY, Builder, Target
from dav.data.framing import frame_of
from dav.data.layout import require
from dav.data.pairing import paired_stems
from dav.errors import DavError

IMAGES = ("imgs", ".jpg")
MAPS = ("gts", ".png")
MASKS = ("valid_masks", ".png")
SPLITS = ("train", "val")
HINT = (
    "unpack HR-WSI (https://github.com/KexianHust/Structure-Guided-Ranking-Loss) so that there is "
    "{train,val}/{imgs,gts,valid_masks}"
)


def plan(raw):
    """(split's folder, image's stem) by split."""
    base = Path(raw) / "HR-WSI" if (Path(raw) / "HR-WSI").is_dir() else Path(raw)
    splits = {}
    for split in SPLITS:
        folder = require(base / split, HINT)
        found = paired_stems(folder, (IMAGES, MAPS, MASKS), HINT)
        splits[split] = [(folder.relative_to(raw).as_posix(), stem) for stem in found]
    return splits


def read(raw, item):
    """One image."""
    folder, stem = item
    base = Path(raw) / folder
    image_path, map_path, mask_path = (
        base / part / (stem + suffix) for part, suffix in (IMAGES, MAPS, MASKS)
    )
    steps, mask = read_steps(map_path), read_steps(mask_path)
    if steps.shape != mask.shape:
        raise DavError(f"{map_path} is {steps.shape} and its mask {mask_path} {mask.shape}")
    target = Target(DISPARITY, steps.astype(np.float32) + 1, mask > 0, unit=1.0)
    yield frame_of(f"{base.name}/{stem}", image_path, map_path, target)


BUILDERS = (
    Builder(
        name="hrwsi",
        kind="labelled",
        sky_unmarked=True,
        plan=plan,
        read=read,
        counts={"train": 20_378, "val": 400},
    ),
)
