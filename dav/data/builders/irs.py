"""IRS: rendered indoor stereo for robots.

Source: Wang et al., "IRS: A Large Naturalistic Indoor Robotics Stereo Dataset …", ICME 2021
    (arXiv 1912.09678), https://github.com/HKBU-HPML/IRS
Licence: its README calls it an open data set and states no terms
Counts: home 31,145, office 43,417, restaurant 22,058, store 6,696: 103,316 images of 960×540
Obtain: the zip files from the links in the repository; unpack them into one folder. IRS_small,
    a small edition, is passed over. lists.zip, unpacked beside them, gives splits.

    RAW/[…/]<scene>/{l,r,d,n}_<i>.{png,png,exr,exr}  (l: left image, d: its disparity)
    RAW/[lists/]IRSDataset_TRAIN.list, IRSDataset_TEST.list  (optional)

Scenes stand in Home, Office, Restaurant, Store, in a Store inside Store, or beside one another,
depending on how the zip files were unpacked; all are accepted.
Map: OpenEXR, one channel; disparity in pixels, larger is nearer: used as it is, never inverted
(depth is 48 / disparity metres: focal length 480 px, baseline .1 m). ≤ 0, infinite and NaN are
unmeasured. Sky is not marked.
Splits: with the two lists "train" and "test" are theirs, and frames on neither are left out: the
authors call those made for debugging (blackjack2015/IRS#3). Without them all frames are "train",
as many as arXiv 2401.10891 counts.
Traps: some disparity maps, listed or not, are of another size than their image (same thread):
left out, and reported.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from dav.data.formats import image_size, read_exr
from dav.data.frames import DISPARITY, Builder, Skipped, Target
from dav.data.framing import frame_of
from dav.data.pairing import files_below
from dav.errors import DavError

HINT = (
    "unpack the zip files of IRS (https://github.com/HKBU-HPML/IRS) so that there is "
    "{Home,Office,Restaurant,Store}/SCENE/l_1.png and d_1.exr"
)
LISTS = {"train": "IRSDataset_TRAIN.list", "test": "IRSDataset_TEST.list"}
LEVELS = 4  # IRSDataset/Store/Store/SCENE


def plan(raw):
    """(scene's folder, frame's index as written) by split."""
    raw = Path(raw)
    scenes = _scenes(raw)
    frames = [(folder, index) for folder, files in scenes for index in _indices(raw, folder, files)]
    if not frames:
        raise DavError(f"no l_*.png and d_*.exr below {raw}: {HINT}")
    lists = _lists(raw)
    if not lists:
        return {"train": frames}
    by_key = {(PurePosixPath(folder).name, index): (folder, index) for folder, index in frames}
    return {split: _listed(path, by_key) for split, path in lists.items()}


def read(raw, item):
    """One left image."""
    folder, index = item
    image_path = Path(raw) / folder / f"l_{index}.png"
    map_path = Path(raw) / folder / f"d_{index}.exr"
    name = f"{map_path.parent.name}/{index}"  # wherever its scene was unpacked
    disparity = read_exr(map_path)
    size = image_size(image_path)
    if size != disparity.shape:
        yield Skipped(name, f"image {size} and disparity {disparity.shape} differ in size")
        return
    target = Target(DISPARITY, disparity, np.isfinite(disparity) & (disparity > 0))
    yield frame_of(name, image_path, map_path, target)


def _scenes(raw):
    """(folder, names of its files) of every folder that may hold images.

    Scenes have names of their own: one that stands in two folders was unpacked twice.
    """
    scenes = {}
    for folder, files in files_below(raw, LEVELS, HINT):
        if "IRS_small" in PurePosixPath(folder).parts or not any(map(_is_frame, files)):
            continue
        name = PurePosixPath(folder).name
        if name in scenes:
            raise DavError(f"scene {name} stands twice below {raw}: {scenes[name][0]} and {folder}")
        scenes[name] = folder, files
    return list(scenes.values())


def _is_frame(name):
    return (name[:2], name[-4:]) in (("l_", ".png"), ("d_", ".exr"))


def _indices(raw, folder, files):
    """The indices of a scene's frames, in order."""
    files = [name for name in files if _is_frame(name)]
    images, maps = ({name[2:-4] for name in files if name[0] == kind} for kind in "ld")
    if alone := sorted(images ^ maps):
        missing = f"l_{alone[0]}.png" if alone[0] in maps else f"d_{alone[0]}.exr"
        raise DavError(
            f"{raw / folder / missing} is missing, and {len(alone) - 1} others there: a "
            f"half-finished download? {HINT}"
        )
    return sorted(images, key=lambda index: (len(index), index))


def _lists(raw):
    """Split → path of its list; empty where there are none."""
    found = {}
    for split, name in LISTS.items():
        for path in (raw / name, raw / "lists" / name):
            if path.is_file():
                found[split] = path
    if len(found) == 1:
        there, missing = next(iter(found.values())), set(LISTS) - set(found)
        raise DavError(
            f"{there.parent / LISTS[missing.pop()]} is missing beside {there}: unpack lists.zip "
            "again, or take both lists away to train on all frames"
        )
    return found


def _listed(path, frames):
    """The frames that a list names, in its order."""
    items = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        image = PurePosixPath(line.split()[0])
        # By scene and index: the lists and the archives place scenes in different folders.
        frame = frames.get((image.parent.name, image.stem.removeprefix("l_")))
        if frame is None:
            raise DavError(
                f"{image}, which {path} names, is missing; {HINT}; or take the lists away to train "
                "on what is there"
            )
        items.append(frame)
    return items


BUILDERS = (
    Builder(
        name="irs",
        kind="labelled",
        sky_unmarked=True,
        plan=plan,
        read=read,
        counts={"train": 103_316},
        keep_images=False,
    ),
)
