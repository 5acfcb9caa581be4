"""TUM RGB-D: videos of a Kinect in offices and halls, with registered depth.

Source: Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012;
https://cvg.cit.tum.de/data/datasets/rgbd-dataset. Licence: CC BY 4.0. Size: 47 sequences of about
0.5 to 2 GB; unpack as many as wanted. Below --raw stand

    rgbd_dataset_freiburg<k>_<name>/rgb.txt, depth.txt      lines `timestamp file`, # comments
    rgbd_dataset_freiburg<k>_<name>/rgb/<timestamp>.png     640×480
    rgbd_dataset_freiburg<k>_<name>/depth/<timestamp>.png   16-bit, 5000 steps a metre, 0 invalid

or --raw is one such sequence itself. Colour and depth are taken at different times: the nearest
pair goes together first, within 0.02 s, and every image and map is used at most once; images
without a map are left out. There is no split of the authors' for depth; the sequences whose names
end in `validation`, held back for SLAM, are `val`, all others `train`.
"""

from bisect import bisect_left, bisect_right
from pathlib import Path

from dav.data.frames import Builder
from dav.data.framing import depth_in_steps, frame_of, read_depth_steps
from dav.data.layout import require, require_pair, require_some
from dav.data.reading import reading
from dav.errors import DavError

HINT = "unpack sequences of the TUM RGB-D benchmark (rgbd_dataset_….tgz) here"
UNIT_M = 1 / 5000
MAX_APART_S = 0.02


def plan(raw):
    """(sequence, image file, depth file), sequences by name, images by time."""
    raw = Path(raw)
    here = (raw / "rgb.txt").exists()
    lists = [raw / "rgb.txt"] if here else require_some(raw, "*/rgb.txt", HINT)
    splits = {"train": [], "val": []}
    for path in lists:
        items = list(_associated(path.parent, "" if here else path.parent.name))
        sequence = path.parent.resolve().name  # of "." too
        splits["val" if sequence.endswith("validation") else "train"] += items
    return {split: items for split, items in splits.items() if items}


def read(raw, item):
    """One pair's frame."""
    sequence, image, depth = item
    folder = Path(raw) / sequence
    target = depth_in_steps(read_depth_steps(folder / depth), UNIT_M)
    name = f"{sequence or folder.resolve().name}/{Path(image).stem}"
    yield frame_of(name, folder / image, folder / depth, target)


def associate(images_s, maps_s, max_apart_s=MAX_APART_S):
    """Times of images and of maps, both ascending → pairs of their indices, ascending.

    Nearest pairs first, each image and each map at most once, none further apart than allowed.
    """
    near = []
    for i, time_s in enumerate(images_s):
        first = bisect_left(maps_s, time_s - max_apart_s)
        last = bisect_right(maps_s, time_s + max_apart_s)
        near += [(abs(time_s - maps_s[k]), i, k) for k in range(first, last)]
    pairs, used = {}, set()
    for _, i, k in sorted(near):
        if i not in pairs and k not in used:
            pairs[i] = k
            used.add(k)
    return sorted(pairs.items())


def read_list(path):
    """rgb.txt or depth.txt → [(time in s, file)], ascending."""
    with reading(path):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    entries = []
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        try:
            time_s, file = parts
            entries.append((float(time_s), file))
        except ValueError:
            raise DavError(f"{path}, line {number}: {line!r} is not `timestamp file`") from None
    return sorted(entries)


def _associated(folder, sequence):
    images = read_list(folder / "rgb.txt")
    maps = read_list(require(folder / "depth.txt", HINT))
    pairs = associate([time_s for time_s, _ in images], [time_s for time_s, _ in maps])
    if not pairs:
        raise DavError(
            f"no image of {folder / 'rgb.txt'} is within {MAX_APART_S} s of a map; {HINT}"
        )
    for i, k in pairs:
        image, depth = images[i][1], maps[k][1]
        require_pair(
            require(folder / image, f"it is listed in rgb.txt; {HINT}"), folder / depth, HINT
        )
        yield sequence, image, depth


# Videos as PNG: stored as JPEG, for training.
BUILDERS = (Builder("tum_rgbd", "metric", plan, read, keep_images=False),)
