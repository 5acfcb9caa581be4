"""Host-side geometry: resize, crop, flip; image, disparity and mask move together.

Shapes: H W image. Sizes are (height, width) in pixels.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from dav.data.decoding import decode_reduced
from dav.errors import DavError

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
    """uint8 [H, W, 3] → uint8 [*size, 3]; each side that shrinks by area average, then each that
    grows by cubic: OpenCV averages only where no side grows."""
    smallest = tuple(map(min, image.shape[:2], size))
    if image.shape[:2] != smallest:
        image = cv2.resize(image, smallest[::-1], interpolation=cv2.INTER_AREA)
    if smallest == tuple(size):
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)


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
    """An example whose image is still encoded → a random crop of it at the network's size,
    flipped from left to right with probability ½.

    The crop's box is drawn in the decoded image, and only the box is resized. It is the part that
    a crop of (height, width) at a random place of the whole resized image shows, to half a pixel of
    the decoded image. Maps may be of another size than the image, but not of another shape.
    Returns image uint8 [*crop_px, 3], disparity float32 and valid bool [*crop_px]. Raises DavError
    for an image that cannot be decoded and for maps that are missing or another's.
    """
    needed = functools.partial(covering_size, short_side_px=short_side_px, crop_px=crop_px)
    image, stored = decode_reduced(example["image"], example["id"], needed)
    check_maps(example, stored)
    rows, columns = (
        random_span(*sides, rng)
        for sides in zip(image.shape[:2], stored, needed(*stored), crop_px, strict=True)
    )
    flip = rng.random() < 0.5
    view = {"image": resize_crop(image[rows.cut, columns.cut], crop_px)}
    if flip:
        view["image"] = cv2.flip(view["image"], 1)
    for name in ("disparity", "valid"):
        values = example[name]
        across = columns.nearest(values.shape[1])
        across = across[::-1] if flip else across
        view[name] = values.take(rows.nearest(values.shape[0]), axis=0).take(across, axis=1)
    return view


@dataclass(frozen=True)
class Span:
    """The part of one side of a decoded image that becomes a crop's side."""

    start: int  # in pixels of the decoded image
    length: int
    reduction: int  # a decoded pixel stands for so many of the stored image
    stored: int  # pixels of the whole stored side
    crop: int  # pixels of the crop's side

    @property
    def cut(self):
        """The span as a slice of the decoded image."""
        return slice(self.start, self.start + self.length)

    def nearest(self, size):
        """For each pixel of the crop, the nearest one, int64 [crop], of a map with `size` pixels
        that stands for the whole side; in whole numbers, so that no rounding decides."""
        twice_crop = 2 * self.start * self.crop + self.length * np.arange(1, 2 * self.crop, 2)
        position = twice_crop * self.reduction * size // (2 * self.crop * self.stored)
        return np.minimum(position, size - 1)


def random_span(decoded, stored, whole, crop, rng):
    """A Span at a random place, for a side of `decoded` pixels, stored with `stored`, that is to be
    seen as `crop` pixels of `whole`."""
    reduction = round(stored / decoded)
    length = min(decoded, max(1, round(crop * stored / (whole * reduction))))
    start = int(rng.integers(decoded - length + 1))
    return Span(start, length, reduction, stored, crop)


def resize_crop(image, size):
    """uint8 [H, W, 3] → uint8 [*size, 3], fast: cubic to enlarge, linear to shrink to no less than
    half, area average beyond.

    Down to half its size, linear is as near to the area average as 46 dB and ten times faster;
    decoding at 1/2, 1/4 or 1/8 leaves no more to be done.
    """
    if image.shape[:2] == tuple(size):
        return image
    shrinking = max(side / wanted for side, wanted in zip(image.shape, size, strict=False))
    method = cv2.INTER_CUBIC if shrinking <= 1 else cv2.INTER_LINEAR
    method = cv2.INTER_AREA if shrinking > 2 else method
    return cv2.resize(image, size[::-1], interpolation=method)


def check_maps(example, stored):
    """Raises DavError unless an example's maps are there and have the shape of its image, which is
    stored with (height, width); any network_size of the image counts as of its shape."""
    if "disparity" not in example:
        raise DavError(
            f"example {example['id']} has no map to learn from: its data set is unlabelled, or "
            "made of pairs"
        )
    height, width = example["disparity"].shape
    ratio = stored[1] / stored[0]
    # network_size raises the short side by up to a patch, which counts `ratio` times if that is the
    # height, and rounds the long one by half a patch.
    if abs(width - height * ratio) > (max(1, ratio) + 0.5) * PATCH_PX:
        raise DavError(
            f"example {example['id']}: image {tuple(stored)} and map {(height, width)} are of "
            "different shape; prepare this data set again"
        )
