"""SA-1B (Segment Anything, arXiv 2304.02643): licensed photographs, faces and plates blurred.

Licence: the SA-1B Dataset Research License; research only.
Obtain: https://ai.meta.com/datasets/segment-anything-downloads/ gives, once the licence is
accepted, a table of a thousand names and links. Size: 11 TB, of which the masks take a good part.
Count: 11,185,362 images (TFDS's segment_anything; 11.1 M in arXiv 2401.10891), 11,186 an archive,
short side 1500 px.

Expected in the raw folder, either or both:

    sa_000000.tar … sa_000999.tar           as they come
    sa_000000/sa_1.jpg, sa_000000/sa_1.json each archive unpacked into a folder of its own name

The archives hold ./sa_1.jpg, ./sa_1.json and so on. Masks (.json) are not used. A folder into which
all archives were unpacked together (11 M images, 22 M files) is not accepted: listing it for every
shard would take longer than reading the images.

Traps: the .tar files are gzip-compressed in spite of their name. In at least one public mirror
sa_000014, 16, 17 and 19 have the listed MD5 and yet do not unpack to their end: they raise
DavError; to do without them, list the others in archives.txt (dav/data/unlabelled.py).
"""

from dav.data.frames import Builder
from dav.data.unlabelled import folder_frames, tar_frames, volumes

SERIES = tuple(f"sa_{number:06d}" for number in range(1000))
HINT = (
    "put the archives sa_000000.tar … there, or unpack each into a folder of its own name "
    "(mkdir sa_000000 && tar -xf sa_000000.tar -C sa_000000)"
)


def plan(raw):
    """One item an archive, about 11,000 images."""
    found = volumes(raw, r"sa_000\d{3}", ".tar", HINT, SERIES)
    return {"train": [path.name for path in found]}


def read(raw, item):
    """An archive's images; ids as sa_223750, which are unique in the set."""
    path = raw / item
    yield from folder_frames(path) if path.is_dir() else tar_frames(path)


BUILDERS = (
    Builder(
        name="sa1b",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 11_100_000},
        items_per_shard=1,
        keep_images=False,
    ),
)
