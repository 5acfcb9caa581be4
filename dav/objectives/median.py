"""Exact medians over the valid pixels of each map, without sorting.

Shapes: B maps, P pixels.
"""

import jax
import jax.numpy as jnp


def masked_median(x, valid):
    """Median of x float32 [B, P] over valid bool [B, P] → [B]; the mean of the two middle values
    for even counts, 0 for a map without valid pixels.

    The two order statistics are found bit by bit, by counting: 32 passes of comparisons, which
    every back end does faster than a sort. The gradient goes to the pixels that hold the value
    (shared equally by ties), as a sort's would.
    """
    count = jnp.sum(valid, axis=-1)
    keys = jax.lax.stop_gradient(jnp.where(valid, _ordered(x), jnp.uint32(0xFFFFFFFF)))
    low = _select(keys, (count - 1) // 2)
    high = _select(keys, count // 2)
    x = jnp.where(valid, x, 0.0)
    return (
        _value_at(x, valid & (keys == low[:, None])) + _value_at(x, valid & (keys == high[:, None]))
    ) / 2


def smallest(x, valid, count):
    """Weights float32 [B, P] of the `count` [B] smallest valid pixels of x [B, P]: 1, or for those
    that tie for the last places an equal share of them; 0 elsewhere. Without gradient."""
    keys = jax.lax.stop_gradient(jnp.where(valid, _ordered(x), jnp.uint32(0xFFFFFFFF)))
    last = _select(keys, jnp.maximum(count - 1, 0))[:, None]
    below, ties = valid & (keys < last), valid & (keys == last)
    places = count - jnp.sum(below, axis=-1)
    share = places / jnp.maximum(jnp.sum(ties, axis=-1), 1)
    return jnp.where(below, 1.0, jnp.where(ties, share[:, None], 0.0))


def _ordered(x):
    """float32 → uint32 in the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _select(keys, rank):
    """The key of 0-based `rank` [B] among keys [B, P]."""

    def add_bit(index, found):
        candidate = found | (jnp.uint32(1) << (31 - index).astype(jnp.uint32))
        below = jnp.sum(keys < candidate[:, None], axis=-1)
        return jnp.where(below <= rank, candidate, found)

    return jax.lax.fori_loop(0, 32, add_bit, jnp.zeros(keys.shape[0], jnp.uint32))


def _value_at(x, hits):
    """The common value of x at `hits`, exact, with the gradient shared among them."""
    value = jnp.max(jnp.where(hits, x, -jnp.inf), axis=-1, initial=-jnp.inf)
    value = jax.lax.stop_gradient(jnp.where(hits.any(axis=-1), value, 0.0))
    share = hits / jnp.maximum(jnp.sum(hits, axis=-1, keepdims=True), 1)
    through = jnp.sum(share * x, axis=-1)
    return value + (through - jax.lax.stop_gradient(through))
