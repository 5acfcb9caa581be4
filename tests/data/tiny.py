"""Small data sets for the tests of preparing: a folder of image files, with or without depth."""

import functools
import time
from pathlib import Path

import cv2
import numpy as np

from dav.data import catalog
from dav.data.frames import DEPTH_M, Builder, Frame, Target
from dav.errors import DavError


def plan(raw, *, labelled):
    """One item an image."""
    items = [path.name for path in sorted(Path(raw).glob("*")) if path.suffix != ".npy"]
    return {"train": items}


def read(raw, item, *, labelled, pause_s):
    time.sleep(pause_s)
    path = Path(raw) / item
    target = None
    if labelled:
        depth_m = path.with_suffix(".npy")
        if not depth_m.exists():
            raise DavError(f"{depth_m} is missing")
        values = np.load(depth_m)
        target = Target(DEPTH_M, values, np.isfinite(values) & (values > 0))
    yield Frame(path.stem, path.read_bytes(), target)


def builder(name, *, labelled=False, pause_s=0, **options):
    return Builder(
        name=name,
        kind="labelled" if labelled else "unlabelled",
        plan=functools.partial(plan, labelled=labelled),
        read=functools.partial(read, labelled=labelled, pause_s=pause_s),
        **{"items_per_shard": 4, "keep_images": labelled} | options,
    )


def install(monkeypatch, *added):
    """Makes the catalog know the builders, in this process."""
    known = catalog.builders()
    names = known | {b.name: b for b in added}
    monkeypatch.setattr(catalog, "builders", lambda: names)


def picture(seed, size=(40, 60)):
    """A smooth coloured picture that no other seed has; uint8 [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def write_pictures(folder, count, *, labelled=False, size=(40, 60)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), picture(number, size))
        if labelled:
            rng = np.random.default_rng(number)
            np.save(folder / f"{number:04d}.npy", rng.uniform(0.5, 90, size).astype(np.float32))
    return folder
