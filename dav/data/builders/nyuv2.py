"""NYU Depth v2: indoor frames of a Kinect, 654 labelled test images and 24,231 for training.

Source: Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images" (ECCV 2012);
cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html. Licence: none stated; used for research. Size:
2.8 GB. Below --raw stand, for `test`,

    nyu_depth_v2_labeled.mat     MATLAB v7.3: `images`, `rawDepths`, `depths`, 1449 of 640×480
    splits.mat                   `testNdxs`, 654 numbers that count from 1

and for `train`, from the authors of BTS (github.com/cleinc/bts; its sync.zip),

    sync/<scene>/{rgb_%05d.jpg, sync_depth_%05d.png}         16-bit, millimetres, 0 invalid
    nyudepthv2_train_files_with_gt.txt, if given: only these; a line names image, depth and focal

A split whose files are not there is left out. Test data come in three editions, which give
different numbers; say which you report:

    nyuv2          `rawDepths`: as measured, holes are 0 and not valid (a quarter of all pixels)
    nyuv2/filled   `depths`: holes filled by the authors by colour
    nyuv2/bts      official_splits/test/<scene>/{rgb_%05d.jpg, sync_depth_%05d.png} of BTS: raw
                   depth cut to whole millimetres, images as JPEG, their border blackened

All are planar depth in metres, at most 10, in the colour camera's frame. Numbers in names count
from 0 as BTS does; MATLAB stores columns first, so HDF5 shows the axes in reverse. Labelled images
have a white border of some 8 pixels, which the evaluation's fixed crop leaves out.
"""

import functools
from pathlib import Path

import numpy as np

from dav.data.containers import read_hdf5, read_mat
from dav.data.counts import require_count
from dav.data.frames import DEPTH_M, Builder, Frame, Skipped, Target
from dav.data.framing import depth_in_steps, frame_of, read_depth_steps
from dav.data.layout import require, require_pair, require_some
from dav.data.reading import read_bytes, reading
from dav.errors import DavError

LABELLED = "nyu_depth_v2_labeled.mat"
LIST = "nyudepthv2_train_files_with_gt.txt"
IMAGES = 1449
TEST_IMAGES = 654
UNIT_M = 0.001
HINT = f"put {LABELLED} and splits.mat of NYU Depth v2 here (docs/data.md)"
HINT_BTS = "unpack the packs of github.com/cleinc/bts here: sync.zip, official_splits"


def plan(raw, *, train):
    """Numbers of the test split's images, counted from 0, and pairs of files to train on."""
    raw, splits = require(Path(raw), HINT), {}
    if (raw / LABELLED).exists():
        splits["test"] = _test_numbers(raw)
    if train and (raw / "sync").exists():
        splits["train"] = _train_pairs(raw)
    if not splits:
        raise DavError(f"{raw} has neither {LABELLED} nor, for training, sync: {HINT}")
    return splits


def read(raw, item, *, depths):
    """One labelled image (a number) or one of BTS's pairs."""
    if not isinstance(item, int):
        yield from read_pair(raw, item)
        return
    path = Path(raw) / LABELLED
    image, depth_m = (read_hdf5(path, name, item) for name in ("images", depths))
    if image.dtype != np.uint8 or image.shape != (3, *depth_m.shape):
        raise DavError(f"{path} has images {image.shape} with {depths} {depth_m.shape}: damaged?")
    image, depth_m = np.ascontiguousarray(image.T), depth_m.T.astype(np.float32)
    target = Target(DEPTH_M, depth_m, np.isfinite(depth_m) & (depth_m > 0))
    if target.valid.any():
        yield Frame(f"{item:05d}", image, target)
    else:
        yield Skipped(f"{item:05d}", f"its {depths} have no valid pixel")


def plan_bts(raw):
    """BTS's test pairs."""
    folder = require(Path(raw) / "official_splits" / "test", HINT_BTS)
    images = require_some(folder, "*/rgb_*.jpg", HINT_BTS)
    require_count(len(images), TEST_IMAGES, folder, HINT_BTS)
    return {"test": [_pair(Path(raw), image) for image in images]}


def read_pair(raw, item):
    """One image of BTS's packs with its depth, paths relative to raw."""
    image, depth = (Path(raw) / name for name in item)
    name = f"{image.parent.name}/{image.stem.removeprefix('rgb_')}"
    yield frame_of(name, image, depth, depth_in_steps(read_depth_steps(depth), UNIT_M))


def _test_numbers(raw):
    path = require(raw / "splits.mat", HINT)
    numbers = read_mat(path, "testNdxs")["testNdxs"].ravel()
    require_count(len(set(numbers.tolist())), TEST_IMAGES, path, HINT)
    if numbers.min() < 1 or numbers.max() > IMAGES:
        raise DavError(f"{path} has numbers {numbers.min()} … {numbers.max()}, not 1 … {IMAGES}")
    return [int(number) - 1 for number in numbers]


def _train_pairs(raw):
    if (raw / LIST).exists():
        return [_listed(raw, line) for line in _lines(raw / LIST)]
    return [_pair(raw, image) for image in require_some(raw / "sync", "*/rgb_*.jpg", HINT_BTS)]


def _lines(path):
    with reading(path):
        return [line for line in read_bytes(path).decode().splitlines() if line.strip()]


def _listed(raw, line):
    columns = line.split()
    if len(columns) < 2:
        raise DavError(f"{raw / LIST} has the line {line!r}; it must name an image and its depth")
    names = [f"sync/{column.lstrip('/')}" for column in columns[:2]]
    return tuple(require(raw / name, HINT_BTS).relative_to(raw).as_posix() for name in names)


def _pair(raw, image):
    depth = image.with_name(f"sync_depth_{image.stem.removeprefix('rgb_')}.png")
    require_pair(image, depth, HINT_BTS)
    return image.relative_to(raw).as_posix(), depth.relative_to(raw).as_posix()


def _from_mat(name, depths, counts):
    return Builder(
        name=name,
        kind="evaluation",
        plan=functools.partial(plan, train="train" in counts),
        read=functools.partial(read, depths=depths),
        counts=counts,
    )


BUILDERS = (
    _from_mat("nyuv2", "rawDepths", {"test": TEST_IMAGES, "train": 24231}),
    _from_mat("nyuv2/filled", "depths", {"test": TEST_IMAGES}),
    Builder("nyuv2/bts", "evaluation", plan_bts, read_pair, counts={"test": TEST_IMAGES}),
)
