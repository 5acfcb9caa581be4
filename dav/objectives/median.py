"""Exact order statistics over the valid pixels of each map, without sorting.

The value of a rank is found bit by bit: 32 times, all pixels are compared with one number and
counted. That reads the map 32 times and writes nothing, which every back end does faster than a
sort; benchmarks/median.py measures it. Shapes: B maps, P pixels.
"""

import jax
import jax.numpy as jnp

LAST = jnp.uint32(0xFFFFFFFF)  # no number has this key: invalid pixels come after all others
EXACT = 2**24  # float32 counts up to here


@jax.custom_jvp
def masked_median(x, valid):
    """Median of x float32 [B, P] over valid bool [B, P] → [B]; the mean of the two middle values
    for even counts, 0 for a map without valid pixels.

    The gradient goes to the pixels that hold a middle value, shared equally by ties, as a sort's
    would. NaN comes after infinity, or before its negative if its sign bit is set.
    """
    return _mean(*_middle_keys(_keys(x, valid), valid), valid)


@masked_median.defjvp
def _masked_median_jvp(primals, tangents):
    x, valid = primals
    keys = _keys(x, valid)
    low, high = _middle_keys(keys, valid)
    weights = (
        _shares(valid & (keys == low[:, None])) + _shares(valid & (keys == high[:, None]))
    ) / 2
    return _mean(low, high, valid), jnp.sum(weights * tangents[0], axis=-1)


def smallest(x, valid, count):
    """Weights float32 [B, P] of the `count` [B] smallest valid pixels of x [B, P].

    1, or for pixels that tie for the last places an equal share of these; 0 for all others. No
    gradient flows through them.
    """
    keys = _keys(jax.lax.stop_gradient(x), valid)
    last = _select(keys, jnp.maximum(count - 1, 0))[:, None]
    below = valid & (keys < last)
    places = count - jnp.sum(below, axis=-1)
    return jnp.where(below, 1.0, places[:, None] * _shares(valid & (keys == last)))


def _middle_keys(keys, valid):
    """The keys of the two middle values [B]; the same one twice for odd counts."""
    count = jnp.sum(valid, axis=-1)
    low = _select(keys, (count - 1) // 2)
    following = jnp.min(jnp.where(keys > low[:, None], keys, LAST), axis=-1)
    not_above = jnp.sum(keys <= low[:, None], axis=-1)
    return low, jnp.where(count // 2 < not_above, low, following)


def _mean(low, high, valid):
    return jnp.where(valid.any(axis=-1), (_value(low) + _value(high)) / 2, 0.0)


def _select(keys, rank):
    """The key of 0-based `rank` [B] among keys [B, P]."""
    # Counts add up faster as floats.
    number = jnp.float32 if keys.shape[1] <= EXACT else jnp.int32

    def add_bit(index, found):
        candidate = found | (jnp.uint32(1) << (31 - index).astype(jnp.uint32))
        below = jnp.sum((keys < candidate[:, None]).astype(number), axis=-1)
        return jnp.where(below <= rank, candidate, found)

    return jax.lax.fori_loop(0, 32, add_bit, jnp.zeros(keys.shape[0], jnp.uint32))


def _keys(x, valid):
    """float32 → uint32 in the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    keys = jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
    return jnp.where(valid, keys, LAST)


def _value(key):
    """The number of a key."""
    bits = jnp.where(key >> 31 == 1, key & jnp.uint32(0x7FFFFFFF), ~key)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _shares(hits):
    """float32 [B, P] that adds up to 1 for each map, the same at all hits."""
    return hits / jnp.maximum(jnp.sum(hits, axis=-1, keepdims=True), 1)
