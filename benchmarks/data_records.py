"""What benchmarks/data.py measures on: photographs and maps, as records, shards and files."""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
SIDE_PX = 518
CROP_PX = (SIDE_PX, SIDE_PX)
SIZES_PX = {"photographs": (1500, 2250), "pre-shrunk": (518, 777)}
TARGET_PX = (518, 777)
JPEG_QUALITY = 92
IMAGES = 48
UNIT_M = 0.001


def collages(folder, size_px, count):
    """`count` images uint8 RGB of (height, width), each of four photographs."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    photos = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    rng = np.random.default_rng(0)
    quarter = (size_px[1] // 2, size_px[0] // 2)
    for _ in range(count):
        four = [cut(photos[i], quarter) for i in rng.integers(len(photos), size=4)]
        image = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
        yield cv2.resize(image, size_px[::-1]) if image.shape[:2] != size_px else image


def cut(photo, size):
    """The middle of a photograph with the aspect of size (width, height), resized to it."""
    width, height = size
    scale = min(photo.shape[1] / width, photo.shape[0] / height)
    w, h = round(width * scale), round(height * scale)
    top, left = (photo.shape[0] - h) // 2, (photo.shape[1] - w) // 2
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return cv2.resize(photo[top : top + h, left : left + w], size, interpolation=method)


def jpeg_of(image):
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def depth_maps(count):
    """Measured depth of dav's sample in millimetres, uint16 of TARGET_PX, as PNG."""
    paths = sorted((ROOT / "dav" / "sample" / "icl").glob("*.png"))
    for path in itertools.islice(itertools.cycle(paths), count):
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth = cv2.resize(depth, TARGET_PX[::-1], interpolation=cv2.INTER_NEAREST)
        yield cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def make_records(photos, size_px):
    """Records as dav stores them: the bytes of image and target, and what the target means."""
    images = map(jpeg_of, collages(photos, size_px, IMAGES))
    return [
        {
            "id": f"{number:03d}".encode(),
            "image": image,
            "target": target,
            "quantity": b"depth_m",
            "unit": UNIT_M,
            "growth": 0.0,
        }
        for number, (image, target) in enumerate(zip(images, depth_maps(IMAGES), strict=True))
    ]


def write_shard(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    from dav.data.examples import features

    form = features()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(form.serialize_example(form.encode_example(record)))
    writer.close()


@dataclass(frozen=True)
class Shard:
    """The records of one ArrayRecord file."""

    path: str

    @functools.cached_property
    def _opened(self):
        from grain.sources import ArrayRecordDataSource

        from dav.data.examples import features

        return ArrayRecordDataSource([self.path]), features()

    def __getstate__(self):
        return {"path": self.path}

    def __len__(self):
        return len(self._opened[0])

    def __getitem__(self, index):
        source, form = self._opened
        return form.deserialize_example_np(source[index])


def print_table(title, rows):
    """Rows are dicts with the same keys."""
    print(f"\n{title}")
    cells = [list(rows[0]), *([show(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def show(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
