"""Host-side geometry: resize, crop, flip; image, disparity and mask move together.

Shapes: H W image. Sizes are (height, width) in pixels.
"""

import cv2
import numpy as np

PATCH_PX = 14


def network_size(height, width, short_side_px):
    """The size at which the network sees an image: short side `short_side_px`, aspect kept, both
    sides rounded to a multiple of the patch, never below the short side."""
    scale = short_side_px / min(height, width)

    def round_side(side):
        rounded = int(np.round(side * scale / PATCH_PX)) * PATCH_PX
        return max(rounded, int(np.ceil(short_side_px / PATCH_PX)) * PATCH_PX)

    return round_side(height), round_side(width)


def resize_image(image, size):
    """uint8 [H, W, 3] → uint8 [*size, 3]; area average to shrink, cubic to enlarge."""
    shrinks = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, size[::-1], interpolation=method)


def resize_example(example, short_side_px):
    """Image resized; disparity and valid by nearest neighbour, so that no value is invented."""
    size = network_size(*example["image"].shape[:2], short_side_px)
    resized = {"image": resize_image(example["image"], size)}
    for name in ("disparity", "valid"):
        value = np.asarray(example[name])
        if value.shape != size:
            kind = value.dtype
            value = cv2.resize(
                value.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT
            ).astype(kind)
        resized[name] = value
    return resized


def random_view(example, rng, *, short_side_px, crop_px):
    """Resize, random square crop, horizontal flip with probability ½.

    Returns image uint8 [crop, crop, 3], disparity float32 and valid bool [crop, crop].
    """
    example = resize_example(example, short_side_px)
    height, width = example["valid"].shape
    top = int(rng.integers(height - crop_px + 1))
    left = int(rng.integers(width - crop_px + 1))
    step = -1 if rng.random() < 0.5 else 1
    rows, columns = slice(top, top + crop_px), slice(left, left + crop_px)
    return {k: np.ascontiguousarray(v[rows, columns][:, ::step]) for k, v in example.items()}
