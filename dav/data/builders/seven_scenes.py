"""7-Scenes: videos of seven rooms by a hand-held Kinect, 43,000 images.

Source: Shotton et al., "Scene Coordinate Regression Forests for Camera Relocalization in RGB-D
Images", CVPR 2013; https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes.
Licence: non-commercial research. Size: about 20 GB. Download the scenes, and unpack the archives
of the sequences inside each; below --raw stand, for one scene or more,

    <scene>/TrainSplit.txt, TestSplit.txt       lines `sequence<k>`
    <scene>/seq-<kk>/frame-<nnnnnn>.color.png   640×480
    <scene>/seq-<kk>/frame-<nnnnnn>.depth.png   16-bit millimetres, 0 and 65535 invalid

with the scenes chess, fire, heads, office, pumpkin, redkitchen, stairs. Train 26,000 and test
17,000 images, by the authors' lists of sequences.

The depth is **not registered** to the colour image: it stands as the depth camera saw it, some
pixels aside and under a slightly other angle, and the authors publish no transformation. dav takes
both as they are. That blurs supervision at edges; do not take figures at edges from this set.
"""

import re
from pathlib import Path

from dav.data.frames import Builder
from dav.data.framing import depth_in_steps, frame_of, read_depth_steps
from dav.data.layout import require, require_pair, require_some
from dav.data.reading import reading
from dav.errors import DavError

HINT = "unpack scenes of 7-Scenes here, and in each the archives seq-XX.zip"
LISTS = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}


def plan(raw):
    """(scene, sequence, frame) by split, in order of scene, sequence and time."""
    scenes = [path.parent for path in require_some(Path(raw), "*/TrainSplit.txt", HINT)]
    return {
        split: [item for scene in scenes for item in _frames(scene, scene / name)]
        for split, name in LISTS.items()
    }


def read(raw, item):
    """One frame."""
    scene, sequence, frame = item
    folder = Path(raw) / scene / sequence
    depth = folder / f"{frame}.depth.png"
    target = depth_in_steps(read_depth_steps(depth), 0.001)
    yield frame_of(f"{scene}/{sequence}/{frame}", folder / f"{frame}.color.png", depth, target)


def _frames(scene, path):
    for sequence in _sequences(require(path, HINT)):
        images = require_some(scene / sequence, "frame-*.color.png", HINT)
        for image in images:
            frame = image.name.removesuffix(".color.png")
            require_pair(image, image.with_name(f"{frame}.depth.png"), HINT)
            yield scene.name, sequence, frame


def _sequences(path):
    """Lines `sequence3` → folders `seq-03`."""
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = re.fullmatch(r"sequence\s*(\d+)", line.strip())
        if not found:
            raise DavError(f"{path}, line {number}: {line!r} is not `sequence<number>`; {HINT}")
        yield f"seq-{int(found[1]):02d}"


BUILDERS = (Builder("seven_scenes", "metric", plan, read, counts={"train": 26000, "test": 17000}),)
