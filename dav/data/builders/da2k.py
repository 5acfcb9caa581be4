"""DA-2K: which of two points is closer, in about 1,000 photographs and paintings of eight kinds.

Source: Yang et al., "Depth Anything V2" (arXiv 2406.09414, §6); huggingface.co/datasets/
depth-anything/DA-2K. Licence: Apache-2.0. Size: 681 MB, DA-2K.zip; about 2,000 pairs. Below --raw,
or in its folder DA-2K, as the archive unpacks, stand annotations.json and the images that it names,
by paths relative to it:

    {"<image>": [{"point1": [row, column], "point2": [row, column], "closer_point": "point1"}, …]}

Points are rows and columns, in this order, in pixels of the original image seen upright. The closer
one is always point1, so nothing may be learned from the order; here, too, it stands first.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from dav.data.formats import IMAGES
from dav.data.frames import Builder, Frame, Pairs
from dav.data.framing import ORIENTATION
from dav.data.layout import require, require_pair
from dav.data.reading import read_bytes, reading
from dav.errors import DavError

HINT = "unpack DA-2K.zip (huggingface.co/datasets/depth-anything/DA-2K) here"
OTHER = {"point1": "point2", "point2": "point1"}


def plan(raw):
    """(image, ((closer, farther), …)) of the test split, in order of images; points are (row,
    column)."""
    root = _root(raw)
    path = require(root / "annotations.json", HINT)
    with reading(path):
        items = [
            (image, tuple(_pair(image, pair) for pair in pairs))
            for image, pairs in sorted(json.loads(read_bytes(path)).items())
            if pairs
        ]
    for image, _ in items:
        require_pair(path, root / image, HINT)
    return {"test": items}


def read(raw, item):
    """One image with its pairs."""
    name, pairs = item
    path = _root(raw) / name
    points = np.array(pairs, np.int32).reshape(-1, 2, 2)
    height, width = _upright_size(path)
    if (points >= (height, width)).any():
        raise DavError(
            f"{path} is {width}×{height}, and annotations.json has points outside it: was the "
            f"image resized? {HINT}"
        )
    with reading(path):
        yield Frame(Path(name).with_suffix("").as_posix(), read_bytes(path), Pairs(points))


def _root(raw):
    inside = Path(raw) / "DA-2K"
    return inside if inside.is_dir() else Path(raw)


def _pair(image, pair):
    """One annotation → ((row, column) of the closer point, of the farther one)."""
    closer = pair["closer_point"]
    if closer not in OTHER:
        raise DavError(f"{image} has the closer_point {closer!r}; it must be point1 or point2")
    return _point(image, pair[closer]), _point(image, pair[OTHER[closer]])


def _point(image, point):
    row, column = point
    if row != int(row) or column != int(column) or not 0 <= min(point) <= max(point) < 1 << 31:
        raise DavError(f"{image} has the point {point}; it must be [row, column] in whole pixels")
    return int(row), int(column)


def _upright_size(path):
    """(height, width) with the EXIF orientation applied."""
    with reading(path), Image.open(path, formats=IMAGES) as image:
        return image.size if image.getexif().get(ORIENTATION, 1) >= 5 else image.size[::-1]


BUILDERS = (Builder("da2k", "evaluation", plan, read),)
