"""Virtual KITTI 2: five rendered streets in ten variants, 21,260 images of the left camera.

Source: Cabon, Murray, Humenberger, "Virtual KITTI 2" (arXiv 2001.10773);
https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2. Licence:
CC BY-NC-SA 3.0. Size: about 15 GB (vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar, with the right
camera). Download both, unpack them into one folder; below --raw stand

    SceneXX/<variant>/frames/rgb/Camera_0/rgb_%05d.jpg        1242×375
    SceneXX/<variant>/frames/depth/Camera_0/depth_%05d.png

or the same in vkitti_2.0.3_rgb and vkitti_2.0.3_depth, each unpacked into a folder of its own.

Depth is 16-bit PNG in centimetres from the camera's plane; 65535 is the far plane, which only the
sky reaches. Camera_1, the other half of the stereo pair, is left out, as in Depth Anything V2,
whose 19,559 training images are 92 % of 21,260.

There is no published split. ZoeDepth draws 8 % at random, without a seed, and Depth Anything V2's
list cannot be had again from it. dav holds out by position: the last 8 % of each street's frames
are `test`, in all ten variants, since the same view in other weather would give them away.
"""

from pathlib import Path

import numpy as np

from dav.data.frames import DEPTH_M, Builder, Target
from dav.data.framing import frame_of, read_depth_steps
from dav.data.layout import require, require_pair, require_some

SCENES = ("Scene01", "Scene02", "Scene06", "Scene18", "Scene20")
VARIANTS = (
    *("15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right"),
    *("clone", "fog", "morning", "overcast", "rain", "sunset"),
)
HELD_OUT = 0.08
SKY = 65535
UNIT_M = 0.01
HINT = "unpack vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar of Virtual KITTI 2 here"


def plan(raw):
    """(scene, variant, number) by split, in order of scene, variant and time."""
    require(Path(raw), HINT)
    splits = {"train": [], "test": []}
    for scene in SCENES:
        numbers = {variant: _numbers(Path(raw), scene, variant) for variant in VARIANTS}
        first_held_out = _first_held_out(numbers[VARIANTS[0]])
        for variant in VARIANTS:
            for number in numbers[variant]:
                split = "test" if number >= first_held_out else "train"
                splits[split].append((scene, variant, number))
    return splits


def read(raw, item):
    """One frame; what is at the far plane is sky."""
    scene, variant, number = item
    image, depth = _paths(Path(raw), scene, variant, number)
    steps = read_depth_steps(depth)
    sky = steps == SKY
    valid = (steps > 0) & ~sky
    target = Target(DEPTH_M, steps * np.float32(UNIT_M), valid, sky=sky, unit=UNIT_M)
    yield frame_of(f"{scene}/{variant}/{number:05d}", image, depth, target)


def _numbers(raw, scene, variant):
    """The numbers of a variant's frames; each has its depth."""
    folder = _folder(raw, "rgb", scene, variant)
    numbers = [int(path.stem.split("_")[1]) for path in _images(folder)]
    for number in numbers:
        require_pair(*_paths(raw, scene, variant, number), HINT)
    return numbers


def _images(folder):
    return require_some(folder, "rgb_" + "[0-9]" * 5 + ".jpg", HINT)


def _paths(raw, scene, variant, number):
    image = _folder(raw, "rgb", scene, variant) / f"rgb_{number:05d}.jpg"
    return image, _folder(raw, "depth", scene, variant) / f"depth_{number:05d}.png"


def _folder(raw, kind, scene, variant):
    """Where a variant's images ("rgb") or maps ("depth") stand."""
    own = raw / f"vkitti_2.0.3_{kind}"
    return (own if own.is_dir() else raw) / scene / variant / "frames" / kind / "Camera_0"


def _first_held_out(numbers):
    """The first of the last 8 %, at least one."""
    return numbers[-max(1, round(HELD_OUT * len(numbers)))]


COUNTS = {"train": 19550, "test": 1710}
BUILDERS = (Builder("virtual_kitti2", "metric", plan, read, counts=COUNTS),)
