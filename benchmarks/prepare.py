"""What preparing costs: images per second and core, bytes stored, and from these the whole sets.

    python benchmarks/prepare.py --samples=DIR [--images=24] [--out=FILE.json]

Makes, of real photographs and real depth maps in DIR, small raw folders whose images have the
typical size and compression of each training set, and prepares them with one process. In the same
run, alternating, the limit: decode, resize and encode alone, in a plain OpenCV loop over the same
bytes. The totals are these figures times the published counts; the typical sizes are ours, from
the sets' papers and first files, and stated in the table.
"""

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dav.data import shards
from dav.data.frames import DEPTH_M, Builder, Frame, Target
from dav.data.transforms import resize_image

ROUNDS = 3
SIDE_PX = shards.Options().short_side_px


@dataclass(frozen=True)
class Profile:
    """A set's typical image."""

    name: str
    count: int
    size: tuple  # (height, width)
    suffix: str = ".jpg"
    quality: int = 90
    depth: bool = False


PROFILES = (
    Profile("blended_mvs", 115_000, (576, 768), depth=True),
    Profile("diml", 927_000, (756, 1344), ".png", depth=True),
    Profile("hrwsi", 20_378, (600, 800), depth=True),
    Profile("irs", 103_316, (540, 960), ".png", depth=True),
    Profile("megadepth", 128_000, (1000, 1500), depth=True),
    Profile("tartanair", 306_637, (480, 640), ".png", depth=True),
    Profile("bdd100k", 8_200_000, (720, 1280), ".bmp"),
    Profile("google_landmarks", 4_132_914, (600, 800)),
    Profile("imagenet21k", 13_100_000, (375, 500)),
    Profile("lsun", 9_800_000, (256, 341), ".webp", 75),
    Profile("objects365", 1_742_289, (600, 800)),
    Profile("open_images", 7_800_000, (768, 1024)),
    Profile("places365", 6_500_000, (512, 683)),
    Profile("sa1b", 11_185_362, (1500, 2250)),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--out", default="benchmarks/results/prepare_cpu.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    samples = Path(arguments.samples)
    photographs, depths_m = read_photographs(samples), read_depths(samples)
    rows = []
    for profile in PROFILES:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw"
            write_raw(raw, profile, photographs, depths_m, arguments.images)
            rows.append(measure(Path(folder), raw, profile, arguments.images))
            show(rows[-1], header=len(rows) == 1)
    totals(rows)
    Path(arguments.out).write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def read_photographs(samples):
    """The largest photographs at hand, uint8 BGR."""
    paths = sorted((samples / "photos" / "kodak").glob("*"))
    paths += sorted((samples / "official_demo" / "v2").glob("*.jpg"))
    return [cv2.imread(str(path)) for path in paths]


def read_depths(samples):
    """Rendered depth maps, metres, without holes: what most training sets have."""
    paths = sorted((samples / "icl_livingroom").glob("*.png"))[::10]
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / np.float32(1000) for path in paths]


def write_raw(raw, profile, photographs, depths_m, images):
    """A raw folder in the profile's form: every photograph cropped to its shape and resized."""
    raw.mkdir()
    source = zip(itertools.cycle(photographs), itertools.cycle(depths_m), strict=False)
    for number, (photograph, depth_m) in zip(range(images), source, strict=False):
        height, width = profile.size
        scale = min(photograph.shape[0] / height, photograph.shape[1] / width)
        part = photograph[: int(height * scale), : int(width * scale)]
        image = cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)
        quality = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
        options = [quality[profile.suffix], profile.quality] if profile.suffix in quality else []
        cv2.imwrite(str(raw / f"{number:03d}{profile.suffix}"), image, options)
        if profile.depth:
            depth_m = cv2.resize(depth_m, (width, height), interpolation=cv2.INTER_LINEAR)
            np.save(raw / f"{number:03d}.npy", depth_m)


def read(raw, item):
    """A frame; a .bmp stands for a video's frame, which comes as an array."""
    path = Path(raw) / item
    image = path.read_bytes()
    if path.suffix == ".bmp":
        image = cv2.imread(str(path))[..., ::-1]
    target = None
    if (depth_path := path.with_suffix(".npy")).exists():
        depth_m = np.load(depth_path)
        target = Target(DEPTH_M, depth_m, depth_m > 0)
    yield Frame(path.stem, image, target)


def measure(folder, raw, profile, images):
    """One row: both rates and the bytes, medians of alternating rounds."""
    builder = Builder(profile.name, "own", plan=None, read=read, keep_images=False)
    items = tuple(sorted(p.name for p in raw.iterdir() if p.suffix != ".npy"))
    shard = shards.Shard(builder, raw, folder, "train", 0, 1, items, shards.Options())
    ours, limit = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: shards.build(shard)))
        limit.append(seconds(lambda: [plain(raw / item, profile) for item in items]))
    stored = shard.path.stat().st_size / images
    rate = images / np.median(ours)
    return {
        "set": profile.name,
        "images": profile.count,
        "size": profile.size,
        "form": profile.suffix[1:],
        "images_per_s_core": rate,
        "share_of_limit": float(np.median(limit) / np.median(ours)),
        "bytes_an_image": stored,
        "stored_gb": stored * profile.count / 1e9,
        "core_hours": profile.count / rate / 3600,
    }


def seconds(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def plain(path, profile):
    """The least that must be done: decode, resize, encode."""
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    if not profile.depth and min(height, width) > SIDE_PX:
        scale = SIDE_PX / min(height, width)
        image = resize_image(image, (round(height * scale), round(width * scale)))
    if profile.suffix not in (".jpg", ".webp") or image.shape[0] != height:
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if profile.depth:
        codes = (np.load(path.with_suffix(".npy")) * 1000).astype(np.uint16)
        cv2.imencode(".png", codes, [cv2.IMWRITE_PNG_COMPRESSION, 6])


def show(row, *, header):
    """A line of a Markdown table."""
    if header:
        print(
            "| set | images | typical | images/s and core | of the limit | kB each | TB | core-h |"
        )
        print("|---|---|---|---|---|---|---|---|")
    size = "×".join(map(str, row["size"]))
    print(
        f"| {row['set']} | {row['images']:,} | {size} {row['form']} | "
        f"{row['images_per_s_core']:.0f} | {100 * row['share_of_limit']:.0f} % | "
        f"{row['bytes_an_image'] / 1e3:.0f} | {row['stored_gb'] / 1e3:.2f} | "
        f"{row['core_hours']:.0f} |",
        flush=True,
    )


def totals(rows):
    for kind, group in (("labelled", rows[:6]), ("unlabelled", rows[6:])):
        images = sum(row["images"] for row in group)
        stored = sum(row["stored_gb"] for row in group) / 1e3
        hours = sum(row["core_hours"] for row in group)
        print(f"| all {kind} | {images:,} | | | | | {stored:.2f} | {hours:.0f} |")


if __name__ == "__main__":
    main()
