"""dav: trains Depth Anything, and asks it.

import dav

model = dav.load("hf:depth-anything/Depth-Anything-V2-Small-hf")
disparity = model.predict("photo.jpg")  # float32 [H, W], larger = nearer
"""


def load(spec, *, size_px=None, dtype="float32", batch_size=None, aspect_buckets=False):
    """Weights → a model with `predict`; see `dav.inference.DepthModel`.

    spec: a work folder of dav, a .safetensors, a .pth, a transformers folder, or
    hf:org/name[@revision]. size_px: the short side at which the network sees an image; by default
    that of its training, 518 for the releases. dtype: float32 or bfloat16, that of the
    computation. batch_size: images of equal shape that run together; by default 1 on a CPU, 8
    elsewhere. aspect_buckets: round aspect ratios by up to 4 % so that a list of many shapes runs
    in few, each compiled once. Raises DavError if there are no such weights, ConfigError for
    options that cannot work.
    """
    from dav.inference import make_depth_model
    from dav.weights.load import load_weights, seen_size_px

    weights = load_weights(spec)
    return make_depth_model(
        weights.params,
        weights.architecture,
        size_px=seen_size_px(weights) if size_px is None else size_px,
        dtype=dtype,
        batch_size=batch_size,
        aspect_buckets=aspect_buckets,
    )
