"""Google Landmarks v2, training images (Weyand et al., CVPR 2020): landmarks of the world.

Source: https://github.com/cvdfoundation/google-landmark, download-dataset.sh or the links there.
Licence: the images have Creative Commons licences (train_attribution.csv); annotations CC BY 4.0.
Size: 500 archives of about 1 GB. Count: 4,132,914 images (4.1 M in arXiv 2401.10891), about 8,270
an archive. The sets `index` and `test` are not used; their archives have the same names.

Expected in the raw folder, or in its subfolder train/, one of

    images_000.tar … images_499.tar         with, if you like, md5.images_000.txt … beside them,
                                            or in md5sum/train/ of the raw folder
    0/1/2/0123456789abcdef.jpg              all archives unpacked into one folder

Archives are read where there are any, even if they have been unpacked too. Where MD5 files are
there, each archive needs one, and is held against it when it is read.

Traps: archives come damaged now and then (issue 8 of the repository: three of one download), and
the same download again is whole: keep the MD5 files.
"""

import hashlib

from dav.data.frames import Builder
from dav.data.layout import grouped
from dav.data.unlabelled import (
    entries,
    folder_frames,
    one_of,
    refuse_unfinished,
    tar_frames,
    volumes,
)
from dav.errors import DavError

SERIES = tuple(f"images_{number:03d}" for number in range(500))
FOLDERS_PER_ITEM = 8  # of about 1,009 images each
HEX = "0123456789abcdef"
HINT = (
    "put images_000.tar … images_499.tar of the training set there, or unpack all of them into it"
)


def plan(raw):
    """One item an archive, or one for eight of the 4,096 innermost folders: about 8,000 images."""
    folder = one_of(raw, ("train", "."), HINT)
    refuse_unfinished(folder)
    leaves = _leaves(folder)
    place = folder.relative_to(raw).as_posix()
    if leaves and not any(folder.glob("images_*.tar")):
        return {"train": [(place, *group) for group in grouped(leaves, FOLDERS_PER_ITEM)]}
    found = volumes(folder, r"images_[0-4]\d{2}", ".tar", HINT, SERIES)
    _require_sums(raw, [path for path in found if path.is_file()])
    return {"train": [(place, path.name) for path in found]}


def read(raw, item):
    """An item's images; ids as 0123456789abcdef."""
    place, *names = item
    for name in names:
        path = raw / place / name
        if path.is_dir():
            yield from folder_frames(path)
        else:
            _check_sum(raw, path)
            yield from tar_frames(path)


def _leaves(folder):
    """The unpacked folders 0/1/2 that are there, in order."""
    return [
        f"{first}/{second}/{third}"
        for first in HEX
        for second in HEX
        for third in sorted(_subfolders(folder / first / second))
        if third in HEX
    ]


def _subfolders(folder):
    return [entry.name for entry in entries(folder) if entry.is_dir()] if folder.is_dir() else []


def _sum_of(raw, path):
    """Where an archive's MD5 file stands, or None."""
    name = f"md5.{path.stem}.txt"
    for folder in (path.parent, raw / "md5sum" / "train", path.parent / "md5sum" / "train"):
        if (folder / name).is_file():
            return folder / name
    return None


def _require_sums(raw, archives):
    bare = [path for path in archives if _sum_of(raw, path) is None]
    if bare and len(bare) < len(archives):
        raise DavError(
            f"{bare[0]} has no md5.{bare[0].stem}.txt while others have theirs: a half-finished "
            "download? Download it again with its MD5 file, or remove all MD5 files"
        )


def _check_sum(raw, path):
    listed = _sum_of(raw, path)
    if listed is None:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    expected = (listed.read_text(errors="replace").split() or ["nothing"])[0]
    if found != expected.lower():
        raise DavError(
            f"{path} has the MD5 {found}, and {listed} says {expected}: download it again"
        )


BUILDERS = (
    Builder(
        name="google_landmarks",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 4_100_000},
        items_per_shard=1,
        keep_images=False,
    ),
)
