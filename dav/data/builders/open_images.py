"""Open Images V7, training images (Kuznetsova et al., IJCV 2020): photographs from Flickr.

Source: https://storage.googleapis.com/openimages/web/download_v7.html and
https://github.com/cvdfoundation/open-images-dataset.
Licence: images listed as CC BY 2.0, annotations CC BY 4.0.
Two extents:
- all training images, 9,011,219 by the lists of addresses, of which fewer can still be had
  (7.8 M in arXiv 2401.10891); 18 TB at full size;
- the images with boxes: 1,743,042, longest side 1024 px, 513 GB, as sixteen archives
  train_0.tar.gz … train_f.tar.gz (s3://open-images-dataset/tar/), by the first digit of the id, or
  as a folder (aws s3 --no-sign-request sync s3://open-images-dataset/train train).

Expected in the raw folder, one of

    train_0/000002b66c9c498e.jpg            archives unpacked side by side (below train/ is fine)
    train/000002b66c9c498e.jpg              one folder

Archives must be unpacked (tar -xzf train_0.tar.gz): with 110,000 images each they are too large for
one shard. Sixteen folders are read a little faster than one, which is listed for every shard.

Validation and test images are not used.
"""

from dav.data.frames import Builder
from dav.data.unlabelled import (
    IMAGES_PER_ITEM,
    has_images,
    range_frames,
    ranges,
    require_images,
    volumes,
)
from dav.errors import DavError

SERIES = tuple(f"train_{digit}" for digit in "0123456789abcdef")
PATTERN = r"train_[0-9a-f]"
HINT = "unpack train_0.tar.gz … train_f.tar.gz there, or put the images into its folder train"


def plan(raw, per_item=IMAGES_PER_ITEM):
    """Ranges of at most 8,192 images of a folder."""
    flat = [folder for folder in (raw / "train", raw) if folder.is_dir() and has_images(folder)]
    holders = [folder for folder in (raw, raw / "train") if _has_volumes(folder)]
    if len(flat) + len(holders) > 1:
        both = " and in ".join(str(folder) for folder in flat + holders)
        raise DavError(f"images or archives stand in {both}: keep them in one of these places")
    if flat:
        return {"train": ranges(raw, flat[0], per_item)}
    holder = holders[0] if holders else raw
    folders = [_unpacked(path) for path in volumes(holder, PATTERN, ".tar.gz", HINT, SERIES)]
    return {"train": [item for folder in folders for item in ranges(raw, folder, per_item)]}


def read(raw, item):
    """A range's images; ids as 000002b66c9c498e."""
    yield from range_frames(raw, item)


def _unpacked(path):
    folder = path.with_name(path.name.removesuffix(".tar.gz"))
    if not folder.is_dir():
        raise DavError(
            f"{path} must be unpacked (tar -xzf {path.name}): it is too large to be read in one go"
        )
    require_images(folder)
    return folder


def _has_volumes(folder):
    return any(folder.glob("train_[0-9a-f]")) or any(folder.glob("train_[0-9a-f].tar.gz"))


BUILDERS = (
    Builder(
        name="open_images",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 7_800_000},
        items_per_shard=1,
        keep_images=False,
    ),
)
