"""batches[step]: a pure function of (sources, seed, step, rows).

Element k of the data set is this process's rows of global batch k, so nothing about data is ever
saved: a resumed run, or one with other workers or hosts, sees the same examples. Hosts decode,
crop, resize and flip; images travel as uint8 and are normalised on the device.
"""

import contextlib
import functools
import sys
from dataclasses import dataclass

import grain
import numpy as np

from dav.data import mixture, workers
from dav.data.sources import Subset
from dav.data.transforms import random_view

THREADS = 2


def make_batches(parts, batch_sizes, *, seed, short_side_px, crop_px, weights=None, rows=None):
    """The Batches over data sets by kind ("labelled", "unlabelled"), each of its global size; or,
    if `rows` has them by kind, only those of each global batch.

    `parts` has a tuple of sources by kind, whose examples have their images still encoded;
    `weights`, by kind, one number a source, or none: concatenated. Every kind is its own shuffled,
    endless sequence: each batch has exactly its share of each.
    """
    view = functools.partial(random_view, short_side_px=short_side_px, crop_px=tuple(crop_px))
    shares = {}
    for kind, sources in parts.items():
        images = batch_sizes[kind]
        mine = tuple((rows or {}).get(kind, range(images)))
        order = mixture.endless(sources, (weights or {}).get(kind, ()), kind=kind, seed=seed)
        shares[kind] = Share(
            order, view, tuple(crop_px), mixture.seed_for(kind, seed), images, mine
        )
    return Batches(shares)


@dataclass(frozen=True)
class Share:
    """What one process reads of every global batch of one kind."""

    order: object  # endless examples
    view: object  # (example, rng) → crops
    crop_px: tuple
    seed: int
    images: int  # of the whole batch
    rows: tuple[int, ...]  # of them, those that are read here

    def shapes(self):
        """Shape and dtype of what it reads."""
        shape = (len(self.rows), *self.crop_px)
        return {
            "image": ((*shape, 3), "uint8"),
            "disparity": (shape, "float32"),
            "valid": (shape, "bool"),
        }

    def read(self, step, into):
        """Fills arrays of those shapes with this process's images of global batch `step`."""
        for place, index in enumerate(self.indices(step)):
            rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
            view = self.view(self.order[index], rng)
            for name, values in into.items():
                values[place] = view[name]

    def indices(self, step):
        """Where in the endless order this process's examples of a step stand."""
        return [step * self.images + row for row in self.rows]


@dataclass(frozen=True)
class Batches:
    """batches[step] → {kind: arrays}, endless, to be read in any order by any thread or process."""

    shares: dict

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, step):
        """{kind: {"image": uint8 [B, H, W, 3], "disparity": float32, "valid": bool [B, H, W]}}."""
        batch = {
            kind: {name: np.empty(*shape) for name, shape in arrays.items()}
            for kind, arrays in self.shapes().items()
        }
        self.read(step, batch)
        return batch

    def shapes(self):
        """{kind: {name: (shape, dtype)}} of every batch."""
        return {kind: share.shapes() for kind, share in self.shares.items()}

    def read(self, step, into):
        """batches[step], into arrays of those shapes."""
        for kind, share in self.shares.items():
            share.read(step, into[kind])


@contextlib.contextmanager
def reading(batches, start, stop, *, processes=0):
    """Gives an iterator of batches[start], …, batches[stop − 1], made ahead by so many worker
    processes, or for 0 by two threads. On leaving, workers and what they hold are gone."""
    if processes:
        with workers.reading(batches, start, stop, processes) as ahead:
            yield ahead
        return
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    source = grain.MapDataset.source(Subset(batches, start, stop))
    with contextlib.closing(iter(source.to_iter_dataset(options))) as ahead:
        yield ahead
