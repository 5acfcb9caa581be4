"""iBims-1: 100 indoor images with laser depth, for testing alone.

Source: Koch, Liebel, Fraundorfer, Körner, "Evaluation of CNN-based Single-Image Depth Estimation
Methods", ECCV Workshops 2018 (arXiv 1805.01328); https://www.asg.ed.tum.de/lmf/ibims1. Licence:
see its page. Size: below 1 GB. Download ibims1_core_raw.zip and
imagelist.txt; below --raw stand

    imagelist.txt                      100 names, without suffix
    ibims1_core_raw/rgb/<name>.png     640×480
    ibims1_core_raw/depth/<name>.png   16-bit, 50 / 65535 metres a step, 0 invalid
    ibims1_core_raw/mask_invalid/<name>.png   not 0: measured
    ibims1_core_raw/mask_transp/<name>.png    not 0: not behind glass

Both masks are named for what they take away, and both are non-zero where depth may be used: a
pixel counts where both are. imagelist.txt may stand in ibims1_core_raw too.
"""

from pathlib import Path

from dav.data.formats import read_steps
from dav.data.frames import Builder
from dav.data.framing import depth_in_steps, frame_of, read_depth_steps
from dav.data.layout import require, require_pair
from dav.errors import DavError

HINT = "download ibims1_core_raw.zip and imagelist.txt of iBims-1, and unzip here"
UNIT_M = 50 / 65535
KINDS = ("depth", "mask_invalid", "mask_transp")


def plan(raw):
    """The names of imagelist.txt, in its order."""
    folder = require(Path(raw) / "ibims1_core_raw", HINT)
    inside = folder / "imagelist.txt"
    path = inside if inside.exists() else require(Path(raw) / "imagelist.txt", HINT)
    names = path.read_text(encoding="utf-8", errors="replace").split()
    if not names:
        raise DavError(f"{path} is empty; {HINT}")
    for name in names:
        image = require(folder / "rgb" / f"{name}.png", f"it is listed in {path}; {HINT}")
        for kind in KINDS:
            require_pair(image, folder / kind / f"{name}.png", HINT)
    return {"test": [(name,) for name in names]}


def read(raw, item):
    """One image's frame."""
    (name,) = item
    folder = Path(raw) / "ibims1_core_raw"
    path, *masks = (folder / kind / f"{name}.png" for kind in KINDS)
    steps = read_depth_steps(path)
    valid = steps > 0
    for mask_path in masks:
        mask = read_steps(mask_path)
        if mask.shape != steps.shape:
            raise DavError(f"{mask_path} {mask.shape} and {path} {steps.shape} differ in size")
        valid &= mask > 0
    target = depth_in_steps(steps, UNIT_M, valid=valid)
    yield frame_of(name, folder / "rgb" / f"{name}.png", path, target)


BUILDERS = (Builder("ibims1", "metric", plan, read, counts={"test": 100}),)
