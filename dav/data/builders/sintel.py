"""MPI Sintel: 23 scenes of an animated film with exact depth, 1064 images.

Source: Butler et al., "A naturalistic open source movie for optical flow evaluation" (ECCV 2012);
sintel.is.tue.mpg.de. Licence: the film is CC BY 3.0, © Blender Foundation. Size: 5.3 GB and 1.7 GB:
MPI-Sintel-complete.zip and MPI-Sintel-depth-training-20150305.zip; unpack both into one folder.
Below --raw stand

    training/{final,clean}/<scene>/frame_%04d.png      1024×436
    training/depth/<scene>/frame_%04d.dpt

`sintel` are the images with motion blur, defocus and mist (final), which the papers report;
`sintel/clean` those without. The authors' test part has no depth: `test` here is their training
part. Depth is float32 from the camera's plane in Blender's units, about metres, rows from the top;
every pixel has one. Skies stand at about 1e5, and nothing else beyond 1e4: those are sky. Other
values are kept whole, far ones too: caps belong to evaluation.
"""

import functools
from pathlib import Path

import numpy as np

from dav.data.counts import require_count
from dav.data.formats import read_dpt
from dav.data.frames import DEPTH_M, Builder, Target
from dav.data.framing import frame_of
from dav.data.layout import require_pair, require_some

SKY_M = 1e4
FRAMES = {  # by scene
    **{f"alley_{k}": 50 for k in (1, 2)},
    **{"ambush_2": 21, "ambush_4": 33, "ambush_5": 50, "ambush_6": 20, "ambush_7": 50},
    **{f"{name}_{k}": 50 for name in ("bamboo", "bandage") for k in (1, 2)},
    **{"cave_2": 50, "cave_4": 50, "market_2": 50, "market_5": 50, "market_6": 40},
    **{"mountain_1": 50, "shaman_2": 50, "shaman_3": 50, "sleeping_1": 50, "sleeping_2": 50},
    **{"temple_2": 50, "temple_3": 50},
}
HINT = "unpack MPI-Sintel-complete.zip and MPI-Sintel-depth-training-20150305.zip here"


def plan(raw, *, rendering):
    """(scene, frame) of the test split, in order."""
    items = []
    for scene, published in FRAMES.items():
        folder = Path(raw) / "training" / rendering / scene
        images = require_some(folder, "frame_*.png", HINT)
        require_count(len(images), published, folder, HINT)
        for image in images:
            require_pair(image, _depth(raw, scene, image.stem), HINT)
            items.append((scene, image.stem))
    return {"test": items}


def read(raw, item, *, rendering):
    """One frame, its far dome as sky."""
    scene, frame = item
    image = Path(raw) / "training" / rendering / scene / f"{frame}.png"
    depth = _depth(raw, scene, frame)
    values = read_dpt(depth)
    sky = values >= SKY_M
    target = Target(DEPTH_M, values, np.isfinite(values) & (values > 0) & ~sky, sky=sky)
    yield frame_of(f"{scene}/{frame}", image, depth, target)


def _depth(raw, scene, frame):
    return Path(raw) / "training" / "depth" / scene / f"{frame}.dpt"


BUILDERS = tuple(
    Builder(
        name=name,
        kind="evaluation",
        plan=functools.partial(plan, rendering=rendering),
        read=functools.partial(read, rendering=rendering),
        counts={"test": 1064},
    )
    for name, rendering in (("sintel", "final"), ("sintel/clean", "clean"))
)
