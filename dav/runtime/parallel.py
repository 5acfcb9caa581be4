"""The mesh, and where every array lives on it.

Axes: `data` (replicas) and `fsdp` (weight shards). A batch is split over both.
"""

import math

import jax
from jax.sharding import AxisType, NamedSharding

from dav.errors import ConfigError

AXES = ("data", "fsdp")


def make_mesh(data=-1, fsdp=1, *, devices=None):
    """A mesh over all devices, or over those given; data=-1 takes what fsdp leaves.

    Raises ConfigError for sizes, config.mesh.data and config.mesh.fsdp, that do not use them all.
    """
    devices = jax.devices() if devices is None else devices
    there = f"the {len(devices)} device{'s' * (len(devices) != 1)}"
    if data == -1 and len(devices) % fsdp:
        raise ConfigError(f"config.mesh.fsdp={fsdp} does not divide {there}")
    data = len(devices) // fsdp if data == -1 else data
    if data * fsdp != len(devices) or data < 1:
        raise ConfigError(
            f"config.mesh.data={data} × config.mesh.fsdp={fsdp} does not use {there}; "
            "config.mesh.data=-1 takes what fsdp leaves"
        )
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def batch_sharding(mesh):
    """Leading axis split over the whole mesh."""
    return NamedSharding(mesh, jax.P(AXES))


def replicated(mesh):
    """The same on every device."""
    return NamedSharding(mesh, jax.P())


def weight_spec(shape, fsdp, min_elements):
    """Splits the widest divisible dimension over `fsdp`; small arrays stay whole."""
    divisible = [d for d, n in enumerate(shape) if n % fsdp == 0]
    if fsdp == 1 or math.prod(shape) < min_elements or not divisible:
        return jax.P()
    widest = max(divisible, key=lambda d: shape[d])
    return jax.P(*("fsdp" if d == widest else None for d in range(len(shape))))


def tree_sharding(tree, mesh, min_elements):
    """The same rule for every leaf of a tree of arrays or shapes: parameters, optimiser, EMA."""
    fsdp = mesh.shape["fsdp"]
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, weight_spec(leaf.shape, fsdp, min_elements)), tree
    )
