"""In which order examples come: endless, shuffled over everything, mixed from several data sets.

An order is a function from 0, 1, 2 … to examples: it holds no state, no list and no buffer,
whatever the number of records.
"""

import bisect
import functools
import itertools
import math
import sys
import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from grain.experimental import index_shuffle

from dav.data.sources import Concatenated
from dav.errors import ConfigError, DavError

LARGEST_PERIOD = 10**6
FEW = 5000


def endless(parts, weights=(), *, kind, seed):
    """The endless order of `kind` over the sources `parts`.

    Without weights every epoch shows each record of all parts once, in an order of its own. With
    one weight a part, parts have exactly those shares of every period (Mixed), and each goes
    through its own epochs. Kinds and seeds differ in their order.
    """
    empty = [number for number, part in enumerate(parts) if not len(part)]
    if empty or not parts:
        raise DavError(f"{kind} data set {empty[0] + 1 if empty else ''} has no records")
    if not weights:
        return shuffled(Concatenated(tuple(parts)), kind=kind, seed=seed)
    shares = whole_shares(weights)
    return Mixed(
        orders=tuple(
            shuffled(part, kind=f"{kind} {number}", seed=seed) for number, part in enumerate(parts)
        ),
        shares=shares,
        turns=shuffled(range(sum(shares)), kind=f"{kind} turns", seed=seed),
    )


def shuffled(source, *, kind, seed):
    """An endless order over `source`: every epoch shows each record once, in an order of its own;
    kinds of the same seed differ."""
    return Shuffled(source, seed_for(kind, seed))


def seed_for(kind, seed):
    """One number of 32 bits for a kind of examples and the run's seed."""
    return (seed * 1_000_003 + zlib.crc32(kind.encode())) % 2**32


@dataclass(frozen=True)
class Shuffled:
    """A source in an endless order."""

    source: object
    seed: int

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, index):
        return self.source[shuffled_place(index, len(self.source), self.seed)]


def shuffled_place(index, length, seed):
    """Where in range(length) the index-th of an endless sequence of shuffled epochs stands.

    Grain's permutation takes 4 µs whatever the length, if it is large, and no memory. It is a
    cipher of 16 bits or more, applied until it falls into the range: 13 ms for a length of 2.
    """
    epoch, place = divmod(index, length)
    seed = (seed + epoch) % 2**32
    if length < FEW:
        return int(permutation(length, seed)[place])
    return index_shuffle(place, max_index=length - 1, seed=seed, rounds=4)


@functools.lru_cache(maxsize=64)
def permutation(length, seed):
    """A random order of range(length), the same for the same seed."""
    return np.random.Generator(np.random.Philox(key=seed)).permutation(length)


@dataclass(frozen=True)
class Mixed:
    """Several endless orders in whole shares: of any sum(shares) examples from a multiple of that
    number on, exactly shares[i] come from orders[i], which are the next ones there; the turns
    are shuffled."""

    orders: tuple
    shares: tuple
    turns: object  # endless; each period is a permutation of range(sum(shares))

    @functools.cached_property
    def ends(self):
        """The turn after each order's last."""
        return tuple(itertools.accumulate(self.shares))

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, index):
        period, turn = index // self.ends[-1], self.turns[index]
        part = bisect.bisect_right(self.ends, turn)
        rank = turn - self.ends[part] + self.shares[part]
        return self.orders[part][period * self.shares[part] + rank]


def whole_shares(weights, name="weights"):
    """Weights → the smallest whole numbers in the same proportion, taken as they are written:
    (0.3, 0.7) → (3, 7). Raises ConfigError, calling them `name`, for weights that are not positive
    numbers."""
    try:
        exact = [Fraction(str(weight)) for weight in weights]
    except ValueError:
        raise ConfigError(f"{name}={tuple(weights)} must be numbers") from None
    if min(exact) <= 0:
        raise ConfigError(f"{name}={tuple(weights)} must be above zero")
    whole = [part * math.lcm(*(other.denominator for other in exact)) for part in exact]
    shares = tuple(int(part / math.gcd(*map(int, whole))) for part in whole)
    if sum(shares) > LARGEST_PERIOD:
        raise ConfigError(
            f"{name}={tuple(weights)} repeat only after {sum(shares)} examples; round them"
        )
    return shares
