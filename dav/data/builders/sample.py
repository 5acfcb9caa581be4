"""The data set that comes with dav: two labelled rooms, one unseen laboratory, photographs.

`sample/icl` (ICL-NUIM living room, rendered), `sample/tum` (TUM RGB-D fr1/desk, Kinect),
`sample/lab` (a laboratory of slambook2, Kinect; held out only), `sample/photos` (unlabelled).
Sources and licences: dav/sample/CREDITS.md. Depth is 16-bit PNG in the source's own unit, 0
invalid; sample.csv states the unit and every file's checksum. There is nothing to download.
"""

import csv
import functools
import hashlib
import importlib.resources

import cv2
import numpy as np

from dav.data.frames import DEPTH_M, Builder, Frame, Target
from dav.errors import DavError

TABLE_SHA256 = "0ea8d39a8f77274f1b5f5dd3cb215b6e31e18b148f80e27349a22f58e573c3b3"
COUNTS = {
    "icl": {"train": 110, "heldout": 17},
    "tum": {"train": 6, "heldout": 2},
    "lab": {"heldout": 5},
    "photos": {"train": 52},
}


def plan(raw, *, source):
    """Rows of sample.csv by split; there is no raw folder."""
    rows = [row for row in read_table() if row["source"] == source]
    splits = sorted({row["split"] for row in rows})
    return {split: [row for row in rows if row["split"] == split] for split in splits}


def read(raw, row):
    """One row's frame."""
    image, target = _read(row["image"], row["image_sha256"]), None
    if row["depth"]:
        png = np.frombuffer(_read(row["depth"], row["depth_sha256"]), np.uint8)
        steps, unit = cv2.imdecode(png, cv2.IMREAD_UNCHANGED), float(row["unit_m"])
        target = Target(DEPTH_M, steps * np.float32(unit), steps > 0, unit=unit)
    yield Frame(f"{row['source']}/{row['id']}", image, target)


BUILDERS = tuple(
    Builder(
        name=f"sample/{source}",
        kind="unlabelled" if source == "photos" else "labelled",
        plan=functools.partial(plan, source=source),
        read=read,
        counts=counts,
        items_per_shard=13 if source == "photos" else 512,
    )
    for source, counts in COUNTS.items()
)


def read_table():
    """The rows of sample.csv as dicts."""
    return list(csv.DictReader(_read("sample.csv", TABLE_SHA256).decode().splitlines()))


def _read(name, sha256):
    path = importlib.resources.files("dav").joinpath("sample", name)
    repair = "restore it with `git checkout dav/sample`, or install dav again"
    if not path.is_file():
        raise DavError(f"the sample file {path} is missing; {repair}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DavError(f"the sample file {path} is damaged (its checksum differs); {repair}")
    return content
