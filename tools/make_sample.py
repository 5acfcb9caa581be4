"""Makes dav/sample/ from the sources' original files.

    python tools/make_sample.py ORIGINALS

ORIGINALS holds icl_livingroom/, tum_fr1_desk/, lab_slambook2/, photos/kodak/ and
photos/debian_cc/ as their authors ship them. Needed only to change the sample.
"""

import csv
import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np

SAMPLE = Path(__file__).parent.parent / "dav" / "sample"
SIZE_PX = (320, 240)  # width, height

# CC BY, CC BY-SA and CC0 photographs of Debian's lomiri-wallpapers. Left out there: drawings and
# gradients (umang, Fossa, Infinite-Sea). The wallpapers of mate-backgrounds are GPL, not CC.
WALLPAPERS = (
    "Bridge_by_Sander_Klootwijk",
    "Dragonfly_by_Bolly",
    "Kleiber_by_Lukas_Baubkus",
    "Picture_0B_by_freespace",
    "Picture_1A_by_freespace",
    "Wine_by_Jakkub_Mede",
    "aitzgorri_by_Aitzol_Berasategi",
    "free_by_Peter_Nerlich",
    "friends_by_Aitzol_Berasategi",
    "greentock_by_Peter_Nerlich",
    "life_by_Aitzol_Berasategi",
    "picosdeeuropa_by_Aitzol_Berasategi",
    "seeding_by_Clements_Engelhardt",
    "sunset_by_Aitzol_Berasategi",
)


def icl_split(index):
    """A video: the held-out part is its last quarter, with a gap before it."""
    if index < 110:
        return "train"
    return "heldout" if index >= 118 and index % 2 == 0 else None


def tum_split(index):
    """Nine consecutive frames: the first six to train, one skipped, two held out."""
    return "train" if index < 6 else "heldout" if index >= 7 else None


def lab_split(index):
    return "heldout"


def labelled_frames(root):
    """Yields source, split, name, image path, depth path, metres per step."""
    sources = (
        ("icl", icl_split, "icl_livingroom/*.jpg", "icl_livingroom/*.png", 1e-3),
        ("tum", tum_split, "tum_fr1_desk/rgb/*", "tum_fr1_desk/depth/*", 1 / 5000),
        ("lab", lab_split, "lab_slambook2/color/*", "lab_slambook2/depth/*", 1e-3),
    )
    for source, split_of, images, depths, unit_m in sources:
        pairs = zip(sorted(root.glob(images)), sorted(root.glob(depths)), strict=True)
        for index, (image, depth) in enumerate(pairs):
            if split_of(index):
                yield source, split_of(index), f"{index:03d}", image, depth, unit_m


def photographs(root):
    """Yields name and image: Kodak whole, each wallpaper as two views that share no pixel."""
    for path in sorted((root / "photos/kodak").glob("*.jpg")):
        yield f"kodak_{path.stem}", crop_to_frame(cv2.imread(str(path)))
    for name in WALLPAPERS:
        image = cv2.imread(str(root / "photos/debian_cc" / f"{name}.jpg"))
        halves = np.array_split(image, 2, axis=int(image.shape[1] > image.shape[0]))
        for letter, half in zip("ab", halves, strict=True):
            yield f"{name}_{letter}", crop_to_frame(half)


def crop_to_frame(image):
    """The largest centred 4:3 or 3:4 crop, shrunk to SIZE_PX."""
    frame = SIZE_PX if image.shape[1] >= image.shape[0] else SIZE_PX[::-1]
    scale = min(image.shape[1] / frame[0], image.shape[0] / frame[1])
    width, height = round(frame[0] * scale), round(frame[1] * scale)
    left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
    crop = image[top : top + height, left : left + width]
    return cv2.resize(crop, frame, interpolation=cv2.INTER_AREA)


def main(root):
    rows = []
    for source, split, name, image_path, depth_path, unit_m in labelled_frames(root):
        image = cv2.resize(cv2.imread(str(image_path)), SIZE_PX, interpolation=cv2.INTER_AREA)
        depth = cv2.imread(str(depth_path), cv2.IMREAD_UNCHANGED)
        depth = cv2.resize(depth, SIZE_PX, interpolation=cv2.INTER_NEAREST)
        files = (
            write_image(f"{source}/{name}.jpg", image),
            write_depth(f"{source}/{name}.png", depth),
        )
        rows.append((source, split, name, *files[0], *files[1], f"{unit_m:g}"))
    for name, image in photographs(root):
        rows.append(
            ("photos", "train", name, *write_image(f"photos/{name}.jpg", image), "", "", "")
        )
    header = ["source", "split", "id", "image", "image_sha256", "depth", "depth_sha256", "unit_m"]
    with open(SAMPLE / "sample.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    table = (SAMPLE / "sample.csv").read_bytes()
    print(f"TABLE_SHA256 of dav/data/builders/sample.py: {hashlib.sha256(table).hexdigest()}")


def write_image(name, image):
    return write(name, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def write_depth(name, depth):
    return write(name, cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def write(name, encoded):
    path = SAMPLE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())
    return name, hashlib.sha256(encoded.tobytes()).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
