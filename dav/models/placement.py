"""Where activations live on a mesh: a batch stays split over all of its devices.

Weights may be split over an axis of the mesh that the batch is split over too. Left to itself, the
compiler then splits channels over that axis as well, and sends activations where it should gather
weights: some of them, those of the whole batch, to every device.
"""

import math

import jax
from jax.sharding import NamedSharding


def ambient_mesh(x):
    """The mesh of `jax.set_mesh`, or of the arrays that x was computed from; maybe an empty one."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.typeof(x).sharding.mesh if mesh.empty else mesh


def split_batch(x):
    """x [B, ...] as it is, B split over all axes of the mesh and nothing else; so is its gradient.

    Does nothing without a mesh, in a shard_map, whose inputs are shares already, and to a B that
    does not divide.
    """
    mesh = ambient_mesh(x)
    axes = mesh.auto_axes
    shares = math.prod(mesh.shape[axis] for axis in axes)
    if shares == 1 or x.shape[0] % shares:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, jax.P(axes)))
