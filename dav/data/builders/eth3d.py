"""ETH3D, high-resolution multi-view training part: 13 scenes, laser-scanned, 454 photographs.

Source: Schöps et al., "A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera
Videos" (CVPR 2017); eth3d.net. Licence: CC BY-NC-SA 4.0. Size: 44 GB of depth
once unpacked, 98 MB each. Download multi_view_training_dslr_jpg.7z, the original, distorted
photographs, and multi_view_training_dslr_depth.7z, and unpack both into one folder. Below --raw
stand

    <scene>/images/dslr_images/DSC_%04d.JPG                  6048×4032
    <scene>/ground_truth_depth/dslr_images/DSC_%04d.JPG      not a JPEG: float32, row by row

Depth is float32 little-endian of the photograph's own size, without header, in metres along the
camera's axis (the scan's points are drawn at their z); inf where no point fell, which is most of
the pixels. It belongs to the distorted photographs: the undistorted ones differ in size.

Where a photograph asks by EXIF to be turned, its depth lies as the pixels are stored, and turning
is left to what stores the example. There is no native sky. The authors' test scenes have no depth:
`test` here is their training part.
"""

from pathlib import Path

import numpy as np

from dav.data.counts import require_count
from dav.data.formats import image_size, read_float32
from dav.data.frames import DEPTH_M, Builder, Frame, Skipped, Target
from dav.data.layout import require, require_pair, require_some
from dav.data.reading import read_bytes, reading
from dav.errors import DavError

PHOTOGRAPHS = {  # by scene
    **{"courtyard": 38, "delivery_area": 44, "electro": 45, "facade": 76, "kicker": 31},
    **{"meadow": 15, "office": 26, "pipes": 14, "playground": 38, "relief": 31},
    **{"relief_2": 31, "terrace": 23, "terrains": 42},
}
HINT = "unpack multi_view_training_dslr_jpg.7z and multi_view_training_dslr_depth.7z of ETH3D here"


def plan(raw):
    """(scene, photograph) of the test split, in order."""
    items = []
    for scene, published in PHOTOGRAPHS.items():
        folder = require(Path(raw) / scene, HINT) / "images" / "dslr_images"
        photographs = require_some(folder, "*.JPG", HINT)
        require_count(len(photographs), published, folder, HINT)
        for photograph in photographs:
            require_pair(photograph, _depth(raw, scene, photograph.stem), HINT)
            items.append((scene, photograph.stem))
    return {"test": items}


def read(raw, item):
    """One photograph; no depth where the scan has none."""
    scene, stem = item
    image = Path(raw) / scene / "images" / "dslr_images" / f"{stem}.JPG"
    path = require_pair(image, _depth(raw, scene, stem), HINT)
    depth_m = _read_depth(path, image)
    target = Target(DEPTH_M, depth_m, np.isfinite(depth_m) & (depth_m > 0))
    if not target.valid.any():
        yield Skipped(f"{scene}/{stem}", f"{path.name} has no valid pixel")
        return
    with reading(image):
        yield Frame(f"{scene}/{stem}", read_bytes(image), target)


def _read_depth(path, image):
    """A depth file in its photograph's size. Raises DavError, naming both, if it has another."""
    height, width = image_size(image)
    found, expected = path.stat().st_size, 4 * height * width
    if found != expected:
        raise DavError(
            f"{path} has {found} bytes; for its photograph {image}, {width}×{height}, it would be "
            f"{expected} of float32: truncated, or not the original, distorted photograph? {HINT}"
        )
    return read_float32(path, (height, width))


def _depth(raw, scene, stem):
    return Path(raw) / scene / "ground_truth_depth" / "dslr_images" / f"{stem}.JPG"


BUILDERS = (Builder("eth3d", "evaluation", plan, read, counts={"test": 454}, items_per_shard=64),)
