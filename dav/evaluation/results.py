"""What an evaluation found on one data set, in the form that its pages and tables are made from.

Shapes: h w a picture as it is shown. Models stand in the order in which they were named.
"""

from dataclasses import dataclass

import numpy as np

SHOWN_PX = 480  # the longest side of a picture
EXTREMES = 10  # best and worst images that are kept of each model
SAMPLES = 24  # images that are kept whatever they score


@dataclass(frozen=True)
class Shown:
    """One image as a page shows it; all pictures uint8 RGB [h, w, 3] of one size, the longest side
    at most SHOWN_PX. pictures.Kept is the same with its pictures compressed.

    Of a set with depth: truth is its disparity, aligned each prediction's after alignment in the
    same colours, error |predicted − true| / true. Of a set of point pairs: truth is the image with
    its pairs, green the closer point; aligned the prediction, error the prediction with the pairs
    that it orders wrongly.
    """

    id: str
    image: np.ndarray
    truth: np.ndarray
    aligned: dict  # model → picture
    error: dict  # model → picture
    figures: dict  # model → {metric: float}


@dataclass(frozen=True)
class SetResult:
    """All models on one split of one data set.

    Metrics of a set with depth: abs_rel, sq_rel, delta1, delta2, delta3, rmse, rmse_log, log10,
    silog, and with the switch abs_rel_disparity and abs_rel_disparity_unclipped; shares, not per
    cent (but silog, which has its usual factor 100), and metres. sq_rel and rmse are missing where
    the truth is known up to scale. Of a set of point pairs: accuracy, and "accuracy SCENE" of each
    scene, in shares, over pairs; there best and worst go by an image's accuracy.
    """

    data: str  # "kitti"
    split: str  # "test"
    protocol: dict  # in words, plain values: everything that belongs beside a number
    images: int  # that the figures are over
    skipped: tuple  # (id, reason) of images left out
    figures: dict  # model → {metric: mean over images}
    best: dict  # model → tuple of at most EXTREMES Shown, the smallest abs_rel first
    worst: dict  # model → tuple of at most EXTREMES Shown, the largest abs_rel first
    samples: tuple  # at most SAMPLES Shown, evenly spaced, in order
