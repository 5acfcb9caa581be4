"""Places365, training images at high resolution (Zhou et al., TPAMI 2017): kinds of places.

Source: http://places2.csail.mit.edu/download.html. Licence: the site's terms, to be accepted for
high resolution. Two extents, each one archive of high-resolution images:

    train_large_places365standard.tar       105 GB   1,803,460 images, 3,068 to 5,000 a class
    train_large_places365challenge.tar      476 GB   8,026,628 images, up to 40,000 a class; it
                                                     contains the first

arXiv 2401.10891 counts 6.5 M, which is neither; Challenge without Standard comes nearest (6.2 M).

Expected in the raw folder: data_large/, as the archives unpack it, or data_large_challenge/ or
data_large_standard/, as torchvision renames it, with

    a/abbey/00000001.jpg
    s/swimming_pool/indoor/00000001.jpg

The archive must be unpacked (tar -xf): it is too large for one shard. The edition of 256 × 256 px
is refused: its images are squeezed to squares, which no photograph's depth is.
"""

import os
from pathlib import Path

from dav.data.frames import Builder
from dav.data.unlabelled import IMAGES_PER_ITEM, range_frames, ranges, refuse_unfinished
from dav.errors import DavError

FOLDERS = ("data_large", "data_large_challenge", "data_large_standard")
HINT = (
    "unpack train_large_places365challenge.tar or train_large_places365standard.tar there (tar -xf)"
)


def plan(raw, per_item=IMAGES_PER_ITEM):
    """A class's images, in ranges of at most 8,192."""
    refuse_unfinished(raw)
    found = [name for name in FOLDERS if (raw / name).is_dir()]
    if len(found) > 1:
        raise DavError(
            f"{raw} holds {' and '.join(found)}, of which one contains the other: move all but "
            "one away"
        )
    if not found:
        small = " The edition of 256 px cannot be used." if any(raw.glob("data_256*")) else ""
        raise DavError(f"{raw / FOLDERS[0]} is missing: {HINT}.{small}")
    folders = _classes(raw / found[0])
    return {"train": [item for folder in folders for item in ranges(raw, folder, per_item)]}


def read(raw, item):
    """A range's images; ids as a/abbey/00000001."""
    place = Path(item[0])
    prefix = "".join(f"{part}/" for part in place.parts[1:])
    yield from range_frames(raw, item, prefix)


def _classes(folder):
    """All folders below, in order."""
    found = []
    for path, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")
        found.append(Path(path))
    return sorted(found)


BUILDERS = (
    Builder(
        name="places365",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 6_500_000},
        items_per_shard=1,
        keep_images=False,
    ),
)
