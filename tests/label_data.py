"""A small unlabelled data set in many shards, some of it damaged, and a tiny teacher's weights."""

import sys
from pathlib import Path

import cv2
import pytest
from random_weights import TINY, random_weights

sys.path.append(str(Path(__file__).parent / "data"))

SIZES = ((40, 60), (60, 40), (40, 58), (48, 48))  # three shapes of the network
BROKEN = {1: (2, b"broken"), 4: (0, b"\xff\xd8\xff\xe0")}  # shard: (record, what is its image)
UNREADABLE = 6  # shard


def make(root, shards, *, per_shard=4, damage=True):
    """Data set `tiny` below root/data and root/teacher.safetensors; returns the set's shards."""
    import tiny

    from dav.data import prepare
    from dav.weights.save import save_official

    raw = root / "raw"
    raw.mkdir(parents=True)
    for number in range(shards * per_shard):
        picture = tiny.picture(number, SIZES[number % len(SIZES)])
        cv2.imwrite(str(raw / f"{number:05d}.jpg"), picture)
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.install(monkeypatch, tiny.builder("tiny", items_per_shard=per_shard))
        folder = prepare.prepare(root / "data", "tiny", raw=raw)
    save_official(root / "teacher.safetensors", random_weights(TINY, 0))
    paths = sorted(folder.glob("*array_record*"))
    assert len(paths) == shards
    if damage:
        damage_images(root, paths)
        spoil(paths[UNREADABLE])
    return paths


def damage_images(root, paths):
    """Puts what is no image in the place of two images."""
    from dav.data import shards, sources

    features, serialize = sources.read_features(root / "data", "tiny", "train"), shards.serializer()
    for number, (index, content) in BROKEN.items():
        counts = sources.shard_counts(root / "data", "tiny", "train")
        records = list(sources.open_shard(paths[number], counts[paths[number]], features))
        records[index]["image"] = content
        for record in records:
            record["id"] = record["id"].decode()
            record["quantity"] = ""
        shards.write_records(paths[number], map(serialize, records))


def spoil(path, image=2):
    """Damages a shard in the middle of one of its images, which are stored as they are."""
    content = path.read_bytes()
    start = -1
    for _ in range(image + 1):
        start = content.index(b"\xff\xd8\xff", start + 1)
    path.write_bytes(content[: start + 99] + bytes(64) + content[start + 163 :])
