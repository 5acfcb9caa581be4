"""Under which rules each data set is evaluated, and the crops.

A protocol decides more than most models do, and the method's papers state little of theirs: caps,
crops and splits of Depth Anything's tables are reconstructions, except for what agrees with a
released code. `source` says in words where each comes from.

Shapes: H W image and truth.
"""

import dataclasses
from dataclasses import dataclass

SHORT_SIDE_PX = 518  # of the network's input, which the papers do state
SPLITS = ("test", "heldout", "val")  # where a set has not its protocol's: the first of these


@dataclass(frozen=True)
class Protocol:
    """The rules of one data set. A pixel counts if it is measured, inside the crop and, strictly,
    between min_depth_m and max_depth_m; predictions are clipped there after alignment."""

    source: str
    max_depth_m: float = 80.0
    min_depth_m: float = 1e-3
    crop: str = "none"
    images: int = 0  # of the benchmark's split; 0: there is no such number
    split: str = "test"
    truth: str = "as measured"


KITTI = Protocol(
    "Eigen's split with KITTI's annotated depth, Garg's crop of the whole frame; released weights "
    "reach the paper's figures so",
    crop="garg",
    images=652,
)
NYU = Protocol(
    "the labelled test split with Eigen's crop; released weights reach the paper's figures so",
    max_depth_m=10.0,
    crop="nyu",
    images=654,
    truth="raw depth, holes not valid",
)
SINTEL = Protocol(
    "final pass of all 23 scenes, cap as usual with video methods; the paper's figures are not "
    "reproduced by anybody",
    max_depth_m=70.0,
    images=1064,
    truth="rendered",
)
DDAD = Protocol(
    "validation split, front camera, Garg's crop and cap as ZoeDepth; the paper's are unknown",
    crop="garg",
    images=3950,
    truth="lidar, one sweep",
)
ZOE_INDOOR = "caps and crop as ZoeDepth's indoor sets, the crop at the same pixels in any size"
ROOM = Protocol("indoor frames of a depth camera; cap by its range, which we chose", 10.0)
SAMPLE = dataclasses.replace(ROOM, split="heldout")
ANY = Protocol("no published protocol: no crop, cap 80 m unless another is given")
UP_TO_SCALE = "truth is known up to scale: no cap, predictions clipped at the farthest valid depth"
# Sets whose disparity is up to a shift too: depth, and with it every figure, would follow from the
# constant that is added.
UNKNOWN_SHIFT = ("hrwsi",)

PROTOCOLS = {
    "kitti": KITTI,
    "nyuv2": NYU,
    "nyuv2/filled": dataclasses.replace(NYU, truth="holes filled by the set's authors"),
    "nyuv2/bts": dataclasses.replace(NYU, truth="raw depth in whole millimetres, JPEG images"),
    "sintel": SINTEL,
    "sintel/clean": dataclasses.replace(SINTEL, source="clean pass; the paper's is unknown"),
    "ddad": DDAD,
    "ddad/all": dataclasses.replace(DDAD, source="all six cameras, else as ddad", images=23700),
    "eth3d": Protocol(
        "13 training scenes, whole photographs; the paper's figures are not reproduced by anybody",
        images=454,
        truth="laser scan",
    ),
    "diode/indoor": Protocol(
        "validation rooms with the set's mask; released weights reach the paper's figures so",
        max_depth_m=50.0,
        images=325,
        truth="laser scan",
    ),
    "diode/outdoor": Protocol(
        "validation streets with the set's mask, cap as ZoeDepth", images=446, truth="laser scan"
    ),
    "da2k": Protocol("pairs of points at the image's own size (Depth Anything V2, §6)"),
    "ibims1": Protocol(ZOE_INDOOR, 10.0, crop="nyu", images=100, truth="laser scan"),
    "sunrgbd": Protocol(ZOE_INDOOR, 8.0, crop="nyu", images=5050, truth="holes filled (bfx)"),
    "hypersim": Protocol(
        "cap as ZoeDepth, without its crop, which covers only a part of these images",
        images=7690,
        truth="rendered",
    ),
    "virtual_kitti2": Protocol(
        "KB's and Garg's crop and cap as ZoeDepth; of its images a random part is not known",
        crop="kb_garg",
        images=1710,
        truth="rendered",
    ),
    "tum_rgbd": ROOM,
    "seven_scenes": ROOM,
    "sample/icl": dataclasses.replace(SAMPLE, images=17, truth="rendered"),
    "sample/tum": dataclasses.replace(SAMPLE, images=2),
    "sample/lab": dataclasses.replace(SAMPLE, images=5),
}


def protocol_of(name):
    """The protocol of data set `name`, or the one for any."""
    return PROTOCOLS.get(name, ANY)


def crop_box(crop, height, width):
    """(row from, row to, column from, column to), ends exclusive; one of CROPS."""
    if crop == "kb_garg":
        top, bottom, left, right = _kb(height, width)
        box = _shares(GARG, bottom - top, right - left)
        return top + box[0], top + box[1], left + box[2], left + box[3]
    return CROPS[crop](height, width)


# Of height and width: rows from, to, columns from, to.
GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
EIGEN_KITTI = (0.3324324, 0.91351351, 0.0359477, 0.96405229)
NYU_BOX = (45, 471, 41, 601)  # of 480×640, for which it was made


def _shares(shares, height, width):
    sides = (height, height, width, width)
    return tuple(int(share * side) for share, side in zip(shares, sides, strict=True))


def _kb(height, width):
    """The lower, middle 352×1216 of a KITTI frame, or what there is of it."""
    top, left = max(height - 352, 0), max((width - 1216) // 2, 0)
    return top, height, left, min(left + 1216, width)


CROPS = {
    "none": lambda height, width: (0, height, 0, width),
    "garg": lambda height, width: _shares(GARG, height, width),
    "eigen": lambda height, width: _shares(EIGEN_KITTI, height, width),
    "nyu": lambda height, width: tuple(
        min(n, side) for n, side in zip(NYU_BOX, (height, height, width, width), strict=True)
    ),
    "kb": _kb,
    "kb_garg": None,  # crop_box: Garg's of the frame that KB leaves
}
