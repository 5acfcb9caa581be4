"""Where activations live on a mesh: a batch stays split over all of its devices.

Weights may be split over an axis of the mesh that the batch is split over too. Left to itself, the
compiler then splits channels over that axis as well, and sends activations where it should gather
weights: some of them, those of the whole batch, to every device.
"""

import itertools
import math

import jax
import jax.numpy as jnp
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
    if _shares(x, x.shape[:1]) == 1:
        return x
    mesh = ambient_mesh(x)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, jax.P(mesh.auto_axes)))


def join_batches(batches):
    """Arrays [B₁, ...], [B₂, ...], … → [B₁ + B₂ + …, ...], in an order in which every device keeps
    its share of each; `part_batches` knows it."""
    shares = _shares(batches[0], [x.shape[0] for x in batches])
    cut = [x.reshape(shares, -1, *x.shape[1:]) for x in batches]
    joined = jnp.concatenate(cut, axis=1)
    return split_batch(joined.reshape(-1, *joined.shape[2:]))


def part_batches(x, sizes):
    """x [B₁ + B₂ + …, ...] of `join_batches` → its parts, of `sizes` B₁, B₂, …"""
    shares = _shares(x, sizes)
    cut = x.reshape(shares, -1, *x.shape[1:])
    ends = itertools.accumulate(size // shares for size in sizes[:-1])
    parts = jnp.split(cut, list(ends), axis=1)
    return [split_batch(part.reshape(-1, *x.shape[1:])) for part in parts]


def _shares(x, sizes):
    """How many devices hold parts of a batch, if all of its sizes divide; else 1."""
    mesh = ambient_mesh(x)
    shares = math.prod(mesh.shape[axis] for axis in mesh.auto_axes)
    return 1 if any(size % shares for size in sizes) else shares
