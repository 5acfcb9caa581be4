"""Objects365 v2, training images (Shao et al., ICCV 2019): everyday scenes from Flickr.

Source: https://www.objects365.org; patch0.tar.gz … patch50.tar.gz of the training set.
Licence: as the site states; the photographs are under Flickr's terms.
Size: 51 archives, about 350 GB packed and as much again unpacked. Count: 1,742,289 images (1.7 M in
arXiv 2401.10891), about 34,000 a patch. The 80,000 validation images are not used.

Expected in train/ or images/train/ of the raw folder, or in the raw folder itself, one of

    patch0.tar.gz … patch50.tar.gz                  as they come; a quarter of one is an item
    patch0/objects365_v1_00000001.jpg               unpacked; some may stay packed
    objects365_v1_00000001.jpg                      all in one folder, as YOLO's script leaves them

Annotations are not used.

Traps: patch 4 is known to hold objects365_v1_00215749.jpg.ddEA04F9, left of somebody's transfer; it
is no image and is passed over.
"""

from dav.data.frames import Builder
from dav.data.unlabelled import (
    IMAGES_PER_ITEM,
    has_images,
    one_of,
    range_frames,
    ranges,
    tar_frames,
    volumes,
)
from dav.errors import DavError

SERIES = tuple(f"patch{number}" for number in range(51))
PARTS = 4  # of an archive, 8,500 images each
HINT = "put patch0.tar.gz … patch50.tar.gz of the training set there, packed or unpacked"


def plan(raw, per_item=IMAGES_PER_ITEM):
    """Items of 7,000 to 8,500 images: parts of archives, ranges of unpacked folders."""
    folder = one_of(raw, ("train", "images/train", "."), HINT)
    if has_images(folder):
        _refuse_rest(folder)
        return {"train": ranges(raw, folder, per_item)}
    items = []
    for path in volumes(folder, r"patch(\d|[1-4]\d|50)", ".tar.gz", HINT, SERIES):
        if path.is_dir():
            items += ranges(raw, path, per_item)
        else:
            place = path.relative_to(raw).as_posix()
            items += [(place, part, PARTS) for part in range(PARTS)]
    return {"train": items}


def read(raw, item):
    """An item's images; ids as objects365_v1_00000001."""
    if len(item) == 3:
        path, part, parts = item
        yield from tar_frames(raw / path, part, parts)
    else:
        yield from range_frames(raw, item)


def _refuse_rest(folder):
    """Raises DavError if images stand both in the folder and in patches below it."""
    rest = [path for path in sorted(folder.glob("patch*")) if path.is_dir() and has_images(path)]
    if rest:
        raise DavError(f"images stand in {folder} and in {rest[0]}: move them all into one place")


BUILDERS = (
    Builder(
        name="objects365",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 1_700_000},
        items_per_shard=1,
        keep_images=False,
    ),
)
