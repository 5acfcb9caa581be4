"""What a builder is, and what it yields: one data set's images and targets as NumPy arrays.

Shapes: H W image. All targets stand in the image's own size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

DEPTH_M = "depth_m"  # planar depth in metres
DEPTH = "depth"  # planar depth, up to scale in each image or scene
DISPARITY = "disparity"  # larger = nearer, any positive scale in each image
PAIRS = "pairs"  # which of two points is closer


@dataclass(frozen=True)
class Target:
    """One image's measured map.

    Where `valid`, values are finite and > 0, except where `sky`. What stands elsewhere is never
    read. Sky is what is known to be at infinity: it is supervised as disparity 0 and never
    evaluated; where sky and valid disagree, sky wins.
    """

    quantity: str  # DEPTH_M, DEPTH or DISPARITY
    values: np.ndarray  # float32 [H, W]
    valid: np.ndarray  # bool [H, W]
    sky: np.ndarray | None = None  # bool [H, W]
    unit: float | None = None  # values are whole multiples 1 … 65534 of it, and are stored as such


@dataclass(frozen=True)
class Pairs:
    """Points of one image, two by two; of each pair the first is the closer one."""

    points: np.ndarray  # int32 [N, 2, 2]: pair, (closer, farther), (row, column)


@dataclass(frozen=True)
class Frame:
    """One example as its builder found it."""

    id: str  # unique in its data set, stable, path-like, without suffix
    image: bytes | np.ndarray  # an image file as it is, or uint8 [H, W, 3] RGB
    target: Target | Pairs | None = None  # None: unlabelled


@dataclass(frozen=True)
class Skipped:
    """An example that is left out, and why; it is listed in the data set's report."""

    id: str
    reason: str


@dataclass(frozen=True)
class Builder:
    """How one data set is made from the form in which its authors ship it.

    `plan(raw)` looks at the folder `raw` and returns the work items of each split, in order: small
    and picklable, the same at every call. `read(raw, item)` yields an item's Frames and Skipped in
    a fixed order. Consecutive items make a shard. Both raise DavError, naming the file and what to
    do, for a folder or file that is not as published.
    """

    name: str  # "sintel", "diode/indoor"
    kind: str  # "labelled", "unlabelled", "evaluation", "metric" or "own"
    plan: Callable  # (raw: Path) → {split: [item, …]}
    read: Callable  # (raw: Path, item) → iterator of Frame or Skipped
    counts: dict = field(default_factory=dict)  # published number of images, by split
    items_per_shard: int = 512
    version: str = "1.0.0"
    sky_unmarked: bool = False  # its maps do not tell the skies in its images: masks have to
    keep_images: bool = True  # False: images may be stored smaller and as JPEG
    description: Callable | None = None  # (raw: Path) → digest of what its owner says of the files
