"""The teacher as labelling asks it: a program for each of few shapes, split over the devices of
this process.

Shapes: B images over all devices of this process, H W image, h w network.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding

from dav import folders, recipe_network
from dav.data.transforms import network_size
from dav.errors import ConfigError
from dav.models.depth_anything import DepthAnything
from dav.runtime import checkpoint, parallel
from dav.step import predict
from dav.weights import load

# Upright too, so there are nine. Most cameras' and screens' are met; from 9:16 to 16:9 none is
# further off than 9 %, and 2:1 is seen as 16:9, 12 % off.
ASPECTS = (1, 7 / 6, 4 / 3, 3 / 2, 16 / 9)
REST = 4  # a shard's last images of a shape go in batches of a fourth, or in a full one


@dataclass(frozen=True)
class Teacher:
    """What labelling needs to know of its network."""

    start: Callable  # uint8 [B, h, w, 3] → float32 [B, h, w], a jax.Array still being computed
    devices: int
    kind: str  # of device
    batch: int  # images a device, at most
    short_side_px: int
    buckets: bool

    @property
    def full(self):
        """Images of a full batch."""
        return self.batch * self.devices

    def rest(self, images):
        """Images of the batches that so many, fewer than a full one, go in: small ones where they
        leave fewer places empty."""
        small = max(1, self.batch // REST) * self.devices
        return small if -(-images // small) * small < self.full else self.full

    def shape(self, height, width):
        """(h, w) at which the network sees an image."""
        return network_shape(height, width, self.short_side_px, buckets=self.buckets)

    def label_size(self, height, width):
        """(height, width) of an image's label: the network's size for its own aspect ratio."""
        return network_size(height, width, self.short_side_px)


def network_shape(height, width, short_side_px, *, buckets):
    """(h, w) in pixels at which the network sees an image: the short side `short_side_px`, the
    aspect ratio the image's own, or the nearest of ASPECTS. Longer images than those are squeezed.
    """
    if not buckets:
        return network_size(height, width, short_side_px)
    ratio = max(height, width) / min(height, width)
    aspect = min(ASPECTS, key=lambda aspect: abs(math.log(aspect / ratio)))
    long_side = (1, aspect) if width >= height else (aspect, 1)
    return network_size(*long_side, short_side_px)


def make_teacher(config, paths):
    """The Teacher of a recipe. Raises DavError if it is not trained, ConfigError if it cannot make
    labels."""
    mesh = local_mesh()
    everywhere = NamedSharding(mesh, jax.P())
    if folders.trains_teacher(config):
        model, params = _trained(config, paths)
    else:
        model, params = _foreign(config)
    return Teacher(
        start=make_start(model, jax.device_put(params, everywhere), mesh, flip=config.label_flip),
        devices=mesh.size,
        kind=mesh.devices.flat[0].device_kind,
        batch=1 if jax.default_backend() == "cpu" else config.label_batch,  # no gain on a CPU
        short_side_px=config.label_short_side_px,
        buckets=config.label_buckets,
    )


def local_mesh():
    """The devices of this process: no other one takes part."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def _trained(config, paths):
    """The recipe's own teacher: network and newest weights."""
    teacher = folders.teacher_config(config, paths)
    teacher_paths = folders.make_paths(teacher, paths.teacher)
    folders.check_trained(teacher, teacher_paths)
    model = recipe_network.make_model(teacher)
    image = jax.ShapeDtypeStruct((1, *teacher.crop_px, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    # Orbax wants all devices of a run to take part; what lies here is kept.
    everywhere = parallel.replicated(parallel.make_mesh())
    params = checkpoint.restore_params(
        teacher_paths.checkpoints,
        checkpoint.abstract_like(shapes, jax.tree.map(lambda _: everywhere, shapes)),
        average=teacher.optimizer.ema_decay > 0,
    )
    return model, jax.tree.map(lambda leaf: leaf.addressable_data(0), params)


def _foreign(config):
    """Weights of any origin, disparity only."""
    found = load.load_weights(config.teacher_weights)
    if found.architecture.max_depth_m is not None:
        raise ConfigError(
            f"{config.teacher_weights} gives depth in metres; labels are made of disparity"
        )
    model = DepthAnything(found.architecture, dtype=recipe_network.DTYPES[config.model.dtype])
    return model, found.params


def make_start(model, params, mesh, *, flip=False):
    """(images uint8 [B, h, w, 3]) → disparity float32 [B, h, w], begun on the devices of `mesh`.

    Every device runs the same program on its own share of the batch and needs no other. With `flip`
    the map is the mean of the image's and of the mirrored image's, mirrored back.
    """

    def look(params, images):
        disparity = predict(params, images, model=model)
        if flip:
            mirrored = predict(params, jnp.flip(images, axis=2), model=model)
            disparity = (disparity + jnp.flip(mirrored, axis=2)) / 2
        return disparity.astype(jnp.float32)

    shares = jax.P("data")
    run = jax.jit(
        jax.shard_map(
            look, mesh=mesh, in_specs=(jax.P(), shares), out_specs=shares, check_vma=False
        )
    )
    place = functools.partial(jax.device_put, device=NamedSharding(mesh, shares))
    return lambda images: run(params, place(images))
