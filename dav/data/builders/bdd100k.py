"""BDD100K, training videos (Yu et al., CVPR 2020): dash cameras in the United States.

Source: https://bdd-data.berkeley.edu, after registration: bdd100k_videos.zip, or its parts
bdd100k_videos_train_00.zip and so on. Licence: Berkeley's for BDD100K, non-commercial use.
Size: 1.8 TB with validation and test. Count: 70,000 clips of 40 s, 30 frames a second, 1280 × 720
px; every tenth frame, as in arXiv 2401.10891 (issue 194 of its repository), makes some 8.4 M images
(8.2 M there).

Expected in the raw folder: bdd100k/videos/train/0000f77c-6257be58.mov, or the same below videos/,
or below one folder a part: bdd100k_videos_train_00/bdd100k/videos/train/.

Frames are counted as they are decoded, so that a variable rate does not matter. Clips filmed
upright are turned as their file asks. A clip that cannot be decoded, or not to its end, is listed
in the report, after the frames that could be; broken ones have been reported.
"""

from pathlib import PurePosixPath

from dav.data.containers import iterate_video
from dav.data.frames import Builder, Frame, Skipped
from dav.data.layout import require
from dav.data.unlabelled import refuse_unfinished
from dav.errors import DavError

EVERY = 10  # frames
PLACES = ("bdd100k/videos/train", "videos/train", "bdd100k_videos_train_*/bdd100k/videos/train")
HINT = "unzip bdd100k_videos.zip, or all bdd100k_videos_train_….zip, into the raw folder"


def plan(raw):
    """One item a clip, 120 images."""
    for place in PLACES:
        folders = sorted(path for path in raw.glob(place) if path.is_dir())
        clips = [clip for folder in folders for clip in _clips(folder)]
        if clips:
            return {"train": [clip.relative_to(raw).as_posix() for clip in clips]}
    expected = " nor ".join(str(raw / place / "*.mov") for place in PLACES)
    raise DavError(f"there is neither {expected}: {HINT}")


def read(raw, item):
    """Every tenth frame of a clip; ids as 0000f77c-6257be58/000010."""
    clip = PurePosixPath(item).stem
    require(raw / item, "it was there when the work was planned")
    try:
        for index, pixels in iterate_video(raw / item, EVERY):
            yield Frame(f"{clip}/{index:06d}", pixels)
    except DavError as error:
        yield Skipped(clip, str(error))


def _clips(folder):
    refuse_unfinished(folder)
    return sorted(path for path in folder.glob("*.mov") if not path.name.startswith("."))


BUILDERS = (
    Builder(
        name="bdd100k",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 8_200_000},
        items_per_shard=48,
        keep_images=False,
    ),
)
