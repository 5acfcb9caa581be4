"""DIODE, validation part: laser-scanned rooms (325 images) and streets (446).

Source: Vasiljevic et al., "DIODE: A Dense Indoor and Outdoor DEpth Dataset" (arXiv 1908.00463);
diode-dataset.org. Licence: MIT. Size: 2.6 GB, val.tar.gz. Below --raw stand

    val/{indoors,outdoor}/scene_%05d/scan_%05d/<name>.png             1024×768
    val/{indoors,outdoor}/scene_%05d/scan_%05d/<name>_depth.npy       float32 [768, 1024, 1], metres
    val/{indoors,outdoor}/scene_%05d/scan_%05d/<name>_depth_mask.npy  1 valid, 0 not

(`indoors` is plural, `outdoor` is not.) A pixel is valid where the mask says so and its depth is
finite and > 0. Edges have artefacts that the mask does not exclude, and outdoor scans returns from
the sky at up to 350 m; the files are taken as they are. Images and depth are crops of panoramic
scans by a computed camera (fx 886.81, fy 927.06, cx 512, cy 384). Whether that depth runs along the
ray or the camera's axis the authors do not write; it is used as planar depth.

Depth Anything's "DIODE" agrees with the 325 indoor images. The test part's depth is not public:
`test` here is the validation part.
"""

import functools
from pathlib import Path

import numpy as np

from dav.data.counts import require_count
from dav.data.formats import read_npy
from dav.data.frames import DEPTH_M, Builder, Target
from dav.data.framing import frame_of
from dav.data.layout import require_pair, require_some
from dav.errors import DavError

PLACES = {"indoor": ("indoors", 325), "outdoor": ("outdoor", 446)}
HINT = "unpack val.tar.gz of DIODE here"


def plan(raw, *, place):
    """Paths of the test split's images below raw, without suffix, in order."""
    name, published = PLACES[place]
    folder = Path(raw) / "val" / name
    images = require_some(folder, "scene_*/scan_*/*.png", HINT)
    require_count(len(images), published, folder, HINT)
    for image in images:
        for partner in _maps(image):
            require_pair(image, partner, HINT)
    return {"test": [image.relative_to(raw).with_suffix("").as_posix() for image in images]}


def read(raw, item):
    """One image; valid where its mask is 1."""
    image = Path(raw) / f"{item}.png"
    depth, mask = _maps(image)
    depth_m, measured = read_npy(depth), read_npy(mask)
    if measured.shape != depth_m.shape:
        raise DavError(
            f"{mask} is {measured.shape} and {depth} {depth_m.shape}: they do not belong together"
        )
    valid = (measured > 0) & np.isfinite(depth_m) & (depth_m > 0)
    target = Target(DEPTH_M, depth_m.astype(np.float32), valid)
    yield frame_of("/".join(item.split("/")[-3:]), image, depth, target)


def _maps(image):
    return tuple(image.with_name(f"{image.stem}_depth{kind}.npy") for kind in ("", "_mask"))


BUILDERS = tuple(
    Builder(
        name=f"diode/{place}",
        kind="evaluation",
        plan=functools.partial(plan, place=place),
        read=read,
        counts={"test": published},
    )
    for place, (_, published) in PLACES.items()
)
