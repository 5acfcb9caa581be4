"""Pairs of points: whether a prediction says rightly which of two is closer (DA-2K).

Source: Yang et al., "Depth Anything V2" (arXiv 2406.09414, §6): accuracy is the share of pairs in
the right order, over all pairs, and over those of each scene.
"""

from pathlib import PurePosixPath

import numpy as np

SCENES = ("indoor", "outdoor", "non_real", "transparent_reflective", "adverse_style", "aerial")
SCENES += ("underwater", "object")  # as the authors' DA-2K.md names them


def ordered_rightly(prediction, points, *, is_metric=False):
    """prediction [H, W] at the image's size, points int32 [N, 2, 2] (pair, (closer, farther),
    (row, column)) → bool [N]. Equal values are not rightly ordered."""
    rows, columns = points[..., 0], points[..., 1]
    closer, farther = np.moveaxis(prediction[rows, columns], -1, 0)
    return closer < farther if is_metric else closer > farther


def scene_of(name):
    """The scene of an image by its id: the folder that is named as one of DA-2K's eight, else the
    folder it stands in."""
    folders = PurePosixPath(name).parent.parts
    named = [part for part in folders if part in SCENES]
    return (named or folders or ("all",))[-1]


def accuracies(right):
    """(scene, bool [N]) of every image → {"accuracy": over all pairs, "accuracy SCENE": …}."""
    scenes = {}
    for scene, one in right:
        scenes.setdefault(scene, []).append(one)
    figures = {"accuracy": float(np.concatenate([one for _, one in right]).mean())}
    for scene in sorted(scenes):
        figures[f"accuracy {scene}"] = float(np.concatenate(scenes[scene]).mean())
    return figures
