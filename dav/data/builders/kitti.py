"""KITTI, Eigen split: streets around Karlsruhe with accumulated laser depth, 652 test images.

Source: Geiger et al., "Vision meets Robotics" (raw data); Uhrig et al., "Sparsity Invariant CNNs"
(3DV 2017, annotated depth); Eigen et al. (arXiv 1406.2283, the split). Licence: CC BY-NC-SA 3.0.
Size: about 175 GB for the 61 drives, 14 GB for the depth. At cvlibs.net/datasets/kitti, after
registering, download `*_sync.zip` of each drive below (raw data, "synced+rectified") and
data_depth_annotated.zip. Below --raw stand

    raw/<date>/<date>_drive_%04d_sync/image_02/data/%010d.png
    data_depth_annotated/{train,val}/<date>_drive_%04d_sync/proj_depth/groundtruth/image_02/%010d.png

where raw/ may be left out: raw_data_downloader.sh puts the dates where it is run.

Each drive's depth is in one of `train` and `val`, KITTI's own division, which Eigen's ignores.
Images are the left colour camera's, 370 to 376 × 1224 to 1242 pixels, whole: the KB and Garg crops
belong to evaluation. Depth is 16-bit PNG in 1/256 m from the camera's plane, about a fifth of the
pixels; 0 is not measured.

`test` are the 652 of Eigen's 697 images that have annotated depth (the first and last five frames
of a drive have none), in order of drive and time; TEST_FRAMES is the list that all recent tables
use. `train` are the annotated left images of Eigen's 33 training drives: 23,488 frames less ten a
drive, 23,158. A split none of whose drives is there is left out.
"""

from pathlib import Path

from dav.data.frames import Builder
from dav.data.framing import depth_in_steps, frame_of, read_depth_steps
from dav.data.layout import require, require_pair
from dav.errors import DavError

UNIT_M = 1 / 256
UNANNOTATED = 5  # frames at either end of a drive
HINT_IMAGES = "unpack the *_sync.zip of KITTI's raw data below raw/<date>"
HINT_DEPTH = (
    "unpack data_depth_annotated.zip of KITTI's depth prediction below data_depth_annotated"
)

# The annotated ones of Eigen's test frames: drive, then frames as first-last/step or alone.
TEST_FRAMES = """
2011_09_26_drive_0002 6-63/3 69
2011_09_26_drive_0009 16-176/16 196-388/16
2011_09_26_drive_0013 5 10-30/10 35-50/5 60-70/5 80-135/5
2011_09_26_drive_0020 6-21/3 27 33 36 42-78/3
2011_09_26_drive_0023 18-216/18 252-468/18
2011_09_26_drive_0027 7-98/7 112-147/7 161-182/7
2011_09_26_drive_0029 14-196/14 268 296-408/14
2011_09_26_drive_0036 32-704/32 768
2011_09_26_drive_0046 5-115/5
2011_09_26_drive_0048 5-16/1
2011_09_26_drive_0052 6-22/2 26-32/2 36-52/2
2011_09_26_drive_0056 11-121/11 143-286/11
2011_09_26_drive_0059 14-154/14 182-238/14 274-358/14
2011_09_26_drive_0064 22-110/22 154-550/22
2011_09_26_drive_0084 49-153/13 179-374/13
2011_09_26_drive_0086 7-520/27 574-682/27
2011_09_26_drive_0093 16-256/16 305-417/16
2011_09_26_drive_0096 19-456/19
2011_09_26_drive_0101 80-216/34 284-930/34
2011_09_26_drive_0106 15 35-219/8
2011_09_26_drive_0117 26-494/26 546-650/26
2011_09_28_drive_0002 6-12/3 18-24/3 30-39/3 45-63/3 72 78-90/3
2011_09_29_drive_0071 36-612/36 735-807/36 879-951/36
2011_09_30_drive_0016 11-88/11 110-264/11
2011_09_30_drive_0018 107 214 428-2247/107 2419-2740/107
2011_09_30_drive_0027 41-656/41 753-958/41 1040 1081
2011_10_03_drive_0027 181-543/181 734-2001/181 2363-4535/181
2011_10_03_drive_0047 32-224/32 288-800/32
"""

# Eigen's training drives and their numbers of frames.
TRAIN_LENGTHS = """
2011_09_26_drive_0001 108
2011_09_26_drive_0005 154
2011_09_26_drive_0011 233
2011_09_26_drive_0014 314
2011_09_26_drive_0015 297
2011_09_26_drive_0017 114
2011_09_26_drive_0018 270
2011_09_26_drive_0019 481
2011_09_26_drive_0022 800
2011_09_26_drive_0028 430
2011_09_26_drive_0032 390
2011_09_26_drive_0035 131
2011_09_26_drive_0039 395
2011_09_26_drive_0051 438
2011_09_26_drive_0057 361
2011_09_26_drive_0060 78
2011_09_26_drive_0061 703
2011_09_26_drive_0070 420
2011_09_26_drive_0079 100
2011_09_26_drive_0087 729
2011_09_26_drive_0091 340
2011_09_26_drive_0095 268
2011_09_26_drive_0104 312
2011_09_26_drive_0113 87
2011_09_28_drive_0001 106
2011_09_29_drive_0004 339
2011_09_29_drive_0026 158
2011_09_30_drive_0020 1104
2011_09_30_drive_0028 5177
2011_09_30_drive_0033 1594
2011_09_30_drive_0034 1224
2011_10_03_drive_0034 4663
2011_10_03_drive_0042 1170
"""


def plan(raw):
    """(drive, frame number) by split; splits without any drive are left out, and DavError is
    raised for one that lacks some."""
    raw = require(Path(raw), HINT_IMAGES)
    published = {"test": test_frames(), "train": train_frames()}
    splits = {split: items for split, items in published.items() if _has_drives(raw, items)}
    if not splits:
        raise DavError(
            f"neither {raw / 'raw'} nor {raw} holds a drive of the Eigen split: {HINT_IMAGES}"
        )
    return splits


def read(raw, item):
    """One frame with its annotated depth."""
    drive, number = item
    name = f"{number:010d}.png"
    image = require(_images(Path(raw), drive) / name, HINT_IMAGES)
    depth = require_pair(image, _depth_folder(Path(raw), drive) / name, HINT_DEPTH)
    steps = read_depth_steps(depth)
    yield frame_of(f"{drive}/{number:010d}", image, depth, depth_in_steps(steps, UNIT_M))


def test_frames():
    """The 652 (drive, frame number) of the test split."""
    rows = [line.split() for line in TEST_FRAMES.split("\n") if line]
    return [(drive, number) for drive, *runs in rows for run in runs for number in _numbers(run)]


def train_frames():
    """The 23,158 (drive, frame number) of the training split."""
    rows = [line.split() for line in TRAIN_LENGTHS.split("\n") if line]
    return [
        (drive, number)
        for drive, length in rows
        for number in range(UNANNOTATED, int(length) - UNANNOTATED)
    ]


def _numbers(run):
    """ "6-63/3" → 6, 9 … 63; "69" → 69."""
    ends, _, step = run.partition("/")
    first, _, last = ends.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))


def _has_drives(raw, items):
    """Whether a split's drives are there with their depth: all, or none."""
    drives = list(dict.fromkeys(drive for drive, _ in items))
    missing = [drive for drive in drives if not _images(raw, drive).is_dir()]
    if missing and len(missing) < len(drives):
        raise DavError(
            f"{_images(raw, missing[0])} is missing, with {len(missing)} of {len(drives)} drives "
            f"of its split: {HINT_IMAGES}"
        )
    if not missing:
        for drive in drives:
            _depth_folder(raw, drive)
    return not missing


def _images(raw, drive):
    beside = raw / drive[:10] / f"{drive}_sync" / "image_02" / "data"
    return beside if beside.is_dir() else raw / "raw" / beside.relative_to(raw)


def _depth_folder(raw, drive):
    """Where a drive's depth is, below train or val."""
    inside = Path(f"{drive}_sync") / "proj_depth" / "groundtruth" / "image_02"
    folder = raw / "data_depth_annotated"
    found = [
        folder / part / inside for part in ("train", "val") if (folder / part / inside).is_dir()
    ]
    if not found:
        raise DavError(f"{folder} has no {inside} below train or val: {HINT_DEPTH}")
    return found[0]


COUNTS = {"test": 652, "train": 23158}
BUILDERS = (Builder("kitti", "evaluation", plan, read, counts=COUNTS),)
