"""Many images of any size through a network in batches of equal shape.

Shapes: B images, H W image, h w network size.
"""

import numpy as np

from dav.data.transforms import network_size, resize_image


def predict_each(predict, images, *, short_side_px, batch_size):
    """Yields (index, disparity float32 [h, w]) for every image, in the order they get ready.

    images is any iterable of uint8 [H, W, 3]; at most one batch a shape is held. The last batch of
    each shape is filled up, so every shape compiles once.
    """
    waiting = {}
    for index, image in enumerate(images):
        size = network_size(*image.shape[:2], short_side_px)
        bucket = waiting.setdefault(size, [])
        bucket.append((index, resize_image(image, size)))
        if len(bucket) == batch_size:
            yield from _run(predict, waiting.pop(size), batch_size)
    for bucket in waiting.values():
        yield from _run(predict, bucket, batch_size)


def _run(predict, bucket, batch_size):
    images = np.stack([image for _, image in bucket])
    fill = np.repeat(images[:1], batch_size - len(bucket), axis=0)
    disparity = predict(np.concatenate([images, fill]))
    for (index, _), one in zip(bucket, disparity, strict=False):
        yield index, one
