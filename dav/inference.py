"""Images of any size → maps of the same sizes, in batches of equal network shape.

Shapes: B images, H W image, h w network size.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import jax
import numpy as np

from dav.data.transforms import PATCH_PX, network_size
from dav.errors import ConfigError
from dav.images import as_rgb
from dav.models.depth_anything import DTYPES, Architecture, DepthAnything, normalise
from dav.models.resize import bilinear_positions
from dav.threads import in_threads

# Those of cameras and screens, and between them what keeps the steps below 8 %.
ASPECTS = (1, 1.06, 9 / 8, 1.19, 5 / 4, 4 / 3, 1.41, 3 / 2, 8 / 5, 1.69, 16 / 9, 1.89, 2, 2.14)
ASPECTS += (2.25, 21 / 9, 2.5, 2.67, 2.85, 3, 3.2, 3.45, 3.7, 4)
LARGEST_SIZE_PX = 8192
WAITING_BATCHES = 4  # of images that no full batch of their size has come together for
BATCH_ON_ACCELERATOR = 8  # a CPU gains nothing from batches


@dataclass(frozen=True, eq=False)
class DepthModel:
    """A network with its weights, ready to be asked."""

    params: Any = field(repr=False)
    architecture: Architecture
    size_px: int  # the short side at which the network sees an image
    dtype: str
    batch_size: int
    aspect_buckets: bool  # whether images of similar shape are brought to one

    @property
    def is_metric(self):
        """Whether maps are depth in metres; else disparity, larger = nearer, up to scale."""
        return self.architecture.max_depth_m is not None

    def predict(self, images):
        """One image → its map, float32 [H, W]; a list of images of any sizes → a list of maps.

        An image is a uint8 RGB array [H, W, 3], a PIL image, or a path. Raises DavError for one
        that cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self.predict([images])[0]
        maps = dict(self.predict_each((i, as_rgb(image)) for i, image in enumerate(images)))
        return [maps[index] for index in range(len(images))]

    def predict_each(self, items):
        """(key, image uint8 [H, W, 3]) → yields (key, map float32 [H, W]) as they get ready.

        Images whose network sizes are equal share a batch; few batches are held. Every
        size is compiled once and kept: many different ones call for `aspect_buckets`.
        """
        with in_threads(lambda item: self._prepare(item[1]), items) as preparing:
            prepared = (
                ((key, image.shape[:2]), input_.result()) for (key, image), input_ in preparing
            )
            found = in_batches(self._run, prepared, self.batch_size)
            with in_threads(lambda pair: resize_map(pair[1], pair[0][1]), found) as resizing:
                for ((key, _), _), resized in resizing:
                    yield key, resized.result()

    def _prepare(self, image):
        height, width = image.shape[:2]
        if self.aspect_buckets:
            height, width = nearest_aspect(height, width)
        return network_input(image, network_size(height, width, self.size_px))

    def _run(self, images):
        # A CPU gains nothing from a batch, and one image at a time stays in its caches.
        run = _forward if jax.default_backend() != "cpu" else _forward_one_by_one
        return np.asarray(run(self.params, images, self.architecture, self.dtype))


def make_depth_model(
    params,
    architecture,
    *,
    size_px,
    dtype="float32",
    batch_size=None,
    aspect_buckets=False,
):
    """Puts parameters on the device. Raises ConfigError for options that cannot work."""
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    for name, value in (("size_px", size_px), ("batch_size", batch_size)):
        if type(value) is not int and not (name == "batch_size" and value is None):
            raise ConfigError(f"{name}={value!r} must be a whole number")
    if size_px < PATCH_PX:
        raise ConfigError(f"size_px={size_px} is too small; one patch has {PATCH_PX} pixels")
    if size_px > LARGEST_SIZE_PX:
        raise ConfigError(f"size_px={size_px} is too large; at most {LARGEST_SIZE_PX}")
    if batch_size is None:
        batch_size = 1 if jax.default_backend() == "cpu" else BATCH_ON_ACCELERATOR
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1")
    params = jax.device_put(params)
    return DepthModel(params, architecture, size_px, dtype, batch_size, aspect_buckets)


def nearest_aspect(height, width):
    """(height, width) with the nearest aspect ratio of ASPECTS, by at most 4 % another one, or by
    more beyond the widest."""
    ratio = max(height, width) / min(height, width)
    nearest = min(ASPECTS, key=lambda aspect: abs(math.log(aspect / ratio)))
    return (1.0, nearest) if width > height else (nearest, 1.0)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _forward(params, images, architecture, dtype):
    model = DepthAnything(architecture, dtype=DTYPES[dtype])
    return model.apply({"params": params}, normalise(images))[0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _forward_one_by_one(params, images, architecture, dtype):
    def run(image):
        return _forward(params, image[None], architecture, dtype)[0]

    return jax.lax.map(run, images)


def network_input(image, size):
    """uint8 [H, W, 3] → float32 [*size, 3] in about [0, 1], as the authors resize: cubic, in
    double precision, without antialias, overshoot kept."""
    channels = [  # one at a time: in double precision a large photograph takes gigabytes
        cv2.resize(image[..., c] / 255.0, size[::-1], interpolation=cv2.INTER_CUBIC)
        for c in range(3)
    ]
    return np.stack(channels, axis=-1, dtype=np.float32, casting="same_kind")


def resize_map(values, size):
    """float32 [h, w] → [*size], bilinear, corners aligned, as the authors of V2 do."""
    for axis in (0, 1):
        low, weight = bilinear_positions(values.shape[axis], size[axis])
        weight = weight.reshape((-1, 1) if axis == 0 else (1, -1))
        below = np.take(values, low, axis=axis)
        above = np.take(values, np.minimum(low + 1, values.shape[axis] - 1), axis=axis)
        values = below + (above - below) * weight
    return values


def in_batches(run, items, batch_size):
    """(key, array [h, w, 3]) → yields (key, run's output for it), batched by shape.

    A last, smaller batch is filled up to the next power of two: few shapes, few compilations. So
    are the fullest of more than WAITING_BATCHES unfinished ones.
    """

    def run_rest(bucket):
        power = 2 ** math.ceil(math.log2(len(bucket)))
        return _run_bucket(run, bucket, min(power, batch_size))

    waiting = {}
    for key, image in items:
        bucket = waiting.setdefault(image.shape, [])
        bucket.append((key, image))
        if len(bucket) == batch_size:
            yield from _run_bucket(run, waiting.pop(image.shape), batch_size)
        elif sum(map(len, waiting.values())) >= WAITING_BATCHES * batch_size:
            fullest = max(waiting, key=lambda shape: len(waiting[shape]))
            yield from run_rest(waiting.pop(fullest))
    for bucket in waiting.values():
        yield from run_rest(bucket)


def _run_bucket(run, bucket, size):
    images = np.stack([image for _, image in bucket])
    fill = np.repeat(images[:1], size - len(bucket), axis=0)
    found = run(np.concatenate([images, fill]))
    for (key, _), one in zip(bucket, found, strict=False):
        yield key, one
