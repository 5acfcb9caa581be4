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
    lowest = int(np.ceil(short_side_px / PATCH_PX - 1e-6))  # not one more for a rounding error

    def round_side(side):
        return max(int(np.round(side * scale / PATCH_PX)), lowest) * PATCH_PX

    return round_side(height), round_side(width)


def resize_image(image, size):
    """uint8 [H, W, 3] → uint8 [*size, 3]; area average to shrink, cubic to enlarge."""
    shrinks = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, size[::-1], interpolation=method)


def covering_size(height, width, short_side_px, crop_px):
    """Like network_size, enlarged if need be until a crop of (height, width) fits inside."""
    enlarge = max(crop_px[0] / height, crop_px[1] / width)
    return network_size(height, width, max(short_side_px, min(height, width) * enlarge))


def resize_example(example, size):
    """Image resized; disparity and valid by nearest neighbour, so that no value is invented."""
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
    """Resize, random crop of (height, width), horizontal flip with probability ½.

    Returns image uint8 [*crop_px, 3], disparity float32 and valid bool [*crop_px].
    """
    size = covering_size(*example["image"].shape[:2], short_side_px, crop_px)
    example = resize_example(example, size)
    top, left = (int(rng.integers(n - crop + 1)) for n, crop in zip(size, crop_px, strict=True))
    step = -1 if rng.random() < 0.5 else 1
    rows, columns = slice(top, top + crop_px[0]), slice(left, left + crop_px[1])
    return {k: np.ascontiguousarray(v[rows, columns][:, ::step]) for k, v in example.items()}
