"""SUN RGB-D: 10,335 indoor images of four depth cameras, train 5,285 and test 5,050.

Source: Song, Lichtenberg, Xiao, "SUN RGB-D: A RGB-D Scene Understanding Benchmark Suite",
CVPR 2015; https://rgbd.cs.princeton.edu. Licence: research. Size: about 7 GB (SUNRGBD.zip and
SUNRGBDtoolbox.zip). Download both, unzip them beside each other; below --raw stand

    SUNRGBD/<camera>/…/<scene>/image/*.jpg         one image
    SUNRGBD/<camera>/…/<scene>/depth_bfx/*.png     one depth map, holes filled from other frames
    SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat   alltrain, alltest: folders of scenes

with the cameras kv1, kv2, realsense, xtion. The lists hold paths of the authors' own machine
(/n/fs/sun3d/data/SUNRGBD/…, some with doubled or trailing slashes); what follows SUNRGBD/ counts.

Depth is 16-bit PNG in millimetres, **rotated left by three bits**: 8 × the depth below 8.192 m,
and nonsense above if merely divided. 0 is invalid; what lies beyond 8 m, where the toolbox clips,
is invalid as well. Flat re-packs of this set, with constants of their own, are not read here.
"""

import re
from pathlib import Path

import numpy as np

from dav.data.containers import read_mat
from dav.data.frames import Builder
from dav.data.framing import depth_in_steps, frame_of, read_depth_steps
from dav.data.layout import require, require_some
from dav.errors import DavError

LISTS = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
HINT = "unzip SUNRGBD.zip and SUNRGBDtoolbox.zip of https://rgbd.cs.princeton.edu here"
FARTHEST_MM = 8000


def plan(raw):
    """(scene, image file, depth file) of the official lists, in their order."""
    path = require(Path(raw) / LISTS, HINT)
    lists = read_mat(path, "alltrain", "alltest")
    return {
        split: [_item(Path(raw), _scene(text, path)) for text in lists[name]]
        for split, name in (("train", "alltrain"), ("test", "alltest"))
    }


def read(raw, item):
    """One scene's frame."""
    scene, image, depth = item
    folder = Path(raw) / "SUNRGBD" / scene
    steps = unrotate(read_depth_steps(folder / depth))
    target = depth_in_steps(steps, 0.001, valid=steps <= FARTHEST_MM)
    yield frame_of(scene, folder / image, folder / depth, target)


def unrotate(steps):
    """Stored uint16 → millimetres uint16: the lowest three bits are the highest three."""
    steps = np.asarray(steps, np.uint16)
    return (steps >> 3) | (steps << 13)


def _scene(text, path):
    """An entry of the lists → the scene's folder below SUNRGBD/."""
    found = re.search(r".*/SUNRGBD/+(.+?)/*$", str(text))
    if not found:
        raise DavError(f"{path} lists {text!r}, which is no folder of SUNRGBD; download it again")
    return re.sub("/+", "/", found[1])


def _item(raw, scene):
    folder = raw / "SUNRGBD" / scene
    return scene, _only(folder, "image/*.jpg"), _only(folder, "depth_bfx/*.png")


def _only(folder, pattern):
    paths = require_some(folder, pattern, f"a scene of {LISTS}; {HINT}")
    if len(paths) > 1:
        raise DavError(f"{folder} holds {len(paths)} of {pattern}, and should hold one; {HINT}")
    return str(paths[0].relative_to(folder))


BUILDERS = (Builder("sunrgbd", "metric", plan, read, counts={"train": 5285, "test": 5050}),)
