"""Middlebury stereo: a few indoor scenes with structured-light disparity, for testing.

Source: https://vision.middlebury.edu/stereo/data. Licence: research.

`middlebury/2014` (Scharstein et al., GCPR 2014): 23 scenes with ground truth, each in a perfect
and an imperfect rectification, 6 megapixels, 7 GB; or the same scenes as the third evaluation's
training part packs them (MiddEval3-data-H.zip, -Q.zip; MiddEval3-GT0-H.zip, -Q.zip). Anywhere
below --raw stand

    <scene>/im0.png                         the left image
    <scene>/disp0.pfm or disp0GT.pfm        disparity in pixels, inf unknown
    <scene>/calib.txt                       cam0, doffs, baseline in mm; others are not read

Depth in metres is baseline · f / (disparity + doffs) / 1000: the two images' centres lie doffs
apart, and without it depth is plausible and wrong.

`middlebury/2003` (Scharstein, Szeliski, CVPR 2003): cones and teddy, 450×375, below --raw as

    <scene>/im2.png, disp2.png              8-bit grey, 4 × the disparity, 0 unknown

There is no calibration, so disparity it stays, up to scale. It must not be inverted.
"""

import re
from pathlib import Path

import numpy as np

from dav.data.formats import read_pfm, read_steps
from dav.data.frames import DEPTH_M, DISPARITY, Builder, Target
from dav.data.framing import frame_of
from dav.data.layout import require, require_pair
from dav.data.reading import reading
from dav.errors import DavError

HINT_2014 = "unpack scenes of Middlebury 2014, or MiddEval3's data and GT0 archives, here"
HINT_2003 = "put the folders cones and teddy of Middlebury 2003 (quarter size) here"
QUARTER_STEPS = 4


def plan_2014(raw):
    """(scene, disparity file), by path."""
    require(Path(raw), HINT_2014)
    paths = sorted(path for name in ("disp0.pfm", "disp0GT.pfm") for path in Path(raw).rglob(name))
    if not paths:
        raise DavError(f"no disp0.pfm or disp0GT.pfm stands below {raw}: {HINT_2014}")
    for path in paths:
        require_pair(path, path.with_name("im0.png"), HINT_2014)
        require_pair(path, path.with_name("calib.txt"), HINT_2014)
    return {"test": [(str(path.parent.relative_to(raw)), path.name) for path in paths]}


def read_2014(raw, item):
    """One scene, in metres."""
    scene, name = item
    folder = Path(raw) / scene
    disparity_px = read_pfm(folder / name)
    if disparity_px.ndim != 2:
        raise DavError(f"{folder / name} has colours; a disparity map has none")
    focal_px, baseline_mm, doffs_px = read_calibration(folder / "calib.txt")
    total_px = disparity_px.astype(np.float64) + doffs_px
    valid = np.isfinite(total_px) & (disparity_px > 0) & (total_px > 0)
    depth_m = baseline_mm / 1000 * focal_px / np.where(valid, total_px, np.inf)
    target = Target(DEPTH_M, depth_m.astype(np.float32), valid)
    frame = folder.resolve().name if scene == "." else scene
    yield frame_of(frame, folder / "im0.png", folder / name, target)


def plan_2003(raw):
    """(scene,) by name."""
    require(Path(raw), HINT_2003)
    scenes = [path.parent.name for path in sorted(Path(raw).glob("*/disp2.png"))]
    if not scenes:
        raise DavError(f"nothing matches {Path(raw) / '*/disp2.png'}: {HINT_2003}")
    for scene in scenes:
        folder = Path(raw) / scene
        require_pair(folder / "disp2.png", folder / "im2.png", HINT_2003)
    return {"test": [(scene,) for scene in scenes]}


def read_2003(raw, item):
    """One scene, as disparity."""
    (scene,) = item
    folder = Path(raw) / scene
    steps, unit = read_steps(folder / "disp2.png"), 1 / QUARTER_STEPS
    target = Target(DISPARITY, steps * np.float32(unit), steps > 0, unit=unit)
    yield frame_of(scene, folder / "im2.png", folder / "disp2.png", target)


def read_calibration(path):
    """calib.txt → (focal length in px, baseline in mm, doffs in px)."""
    with reading(path):
        text = Path(path).read_text(encoding="utf-8")
        found = dict(re.findall(r"^\s*(\w+)\s*=\s*(.+?)\s*$", text, re.MULTILINE))
        for name in ("cam0", "baseline", "doffs"):
            if name not in found:
                raise DavError(f"it has no line {name}=…")
        focal_px = float(found["cam0"].strip("[] ").split()[0])
        baseline_mm, doffs_px = float(found["baseline"]), float(found["doffs"])
        if not (0 < focal_px < 1e6 and 0 < baseline_mm < 1e6 and abs(doffs_px) < 1e6):
            raise DavError(f"f={focal_px}, baseline={baseline_mm}, doffs={doffs_px} cannot be")
        return focal_px, baseline_mm, doffs_px


BUILDERS = (
    Builder("middlebury/2014", "evaluation", plan_2014, read_2014, counts={"test": 46}),
    Builder("middlebury/2003", "evaluation", plan_2003, read_2003, counts={"test": 2}),
)
