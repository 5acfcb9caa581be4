"""LSUN, the ten categories of scenes, training images (Yu et al., arXiv 1506.03365).

Source: https://www.yf.io/p/lsun; http://dl.yf.io/lsun/scenes/bedroom_train_lmdb.zip and so on, or
download.py of https://github.com/fyu/lsun. Licence: its repository states none for the images.
Size: 156 GB. Count: 9,895,373 images (9.8 M in arXiv 2401.10891):

    bedroom 3,033,042         bridge 818,687       church_outdoor 126,227    classroom 168,103
    conference_room 229,069   dining_room 657,571  kitchen 2,212,277         living_room 1,315,802
    restaurant 626,331        tower 708,264

Expected in the raw folder: bedroom_train_lmdb/data.mdb and so on, unzipped; any of the ten.
Validation sets and the twenty categories of objects are not used. Each LMDB maps a key, 40
hexadecimal digits, to an encoded image (JPEG, or WebP) of 256 px short side.

Traps: the images are small and strongly compressed; training scales them up. A database that is
cut off is noticed by its length.
"""

from dav.data.containers import iterate_lmdb, lmdb_keys
from dav.data.frames import Builder, Frame
from dav.data.unlabelled import IMAGES_PER_ITEM, refuse_unfinished
from dav.errors import DavError

ENDING = "_train_lmdb"
HINT = "download and unzip bedroom_train_lmdb.zip and the other nine categories of scenes there"


def plan(raw, per_item=IMAGES_PER_ITEM):
    """Ranges of keys: (folder, first key as hexadecimal digits, count)."""
    refuse_unfinished(raw)
    folders = sorted(path.name for path in raw.glob(f"*{ENDING}") if path.is_dir())
    packed = [path for path in sorted(raw.glob(f"*{ENDING}.zip")) if path.stem not in folders]
    if packed:
        raise DavError(f"{packed[0]} must be unzipped (unzip {packed[0].name})")
    if not folders:
        raise DavError(f"nothing matches {raw / f'*{ENDING}'}: {HINT}")
    return {"train": [item for folder in folders for item in _ranges(raw, folder, per_item)]}


def read(raw, item):
    """A range's images; ids as bedroom/0000… with the key."""
    folder, first, count = item
    category = folder.removesuffix(ENDING)
    for key, content in iterate_lmdb(raw / folder, bytes.fromhex(first), count):
        yield Frame(f"{category}/{key.decode('ascii', 'backslashreplace')}", content)


def _ranges(raw, folder, per_item):
    keys = lmdb_keys(raw / folder)
    starts = range(0, len(keys), per_item)
    return [(folder, keys[start].hex(), min(per_item, len(keys) - start)) for start in starts]


BUILDERS = (
    Builder(
        name="lsun",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 9_800_000},
        items_per_shard=1,
        keep_images=False,
    ),
)
