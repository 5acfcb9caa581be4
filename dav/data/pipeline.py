"""batches[step]: a pure function of (sources, seed, step, process, processes).

Element k of the data set is this process's share of global batch k, so nothing about data is ever
saved: a resumed run, or one with other workers or hosts, sees the same examples.
"""

import functools
import zlib

import grain
import numpy as np

from dav.data.transforms import random_view


def make_batches(sources, batch_sizes, *, seed, short_side_px, crop_px, process=0, processes=1):
    """Grain data sets over `sources` by kind ("labelled", "unlabelled"), each of its global size.

    Every kind is its own shuffled, endless sequence: each batch has exactly its share of each.
    """
    view = functools.partial(random_view, short_side_px=short_side_px, crop_px=crop_px)
    pipelines = {}
    for kind, source in sources.items():
        local, rest = divmod(batch_sizes[kind], processes)
        if rest or not local:
            raise ValueError(f"batch of {batch_sizes[kind]} {kind} images on {processes} processes")
        examples = shuffled(source, kind=kind, seed=seed).random_map(view)[process::processes]
        pipelines[kind] = examples.batch(local, drop_remainder=True, batch_fn=_stack)
    return pipelines


def shuffled(source, *, kind, seed):
    """An endless Grain data set over `source`: every epoch shows each example once, in an order
    of its own; kinds of the same seed differ."""
    tag = zlib.crc32(kind.encode())
    return grain.MapDataset.source(source).seed((seed * 1_000_003 + tag) % 2**32).shuffle().repeat()


def iterate(pipelines, start, stop, *, threads=2):
    """Yields batches[start], …, batches[stop − 1], decoded ahead by `threads` threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    iterators = {
        kind: iter(pipeline[start:stop].to_iter_dataset(options))
        for kind, pipeline in pipelines.items()
    }
    for _ in range(start, stop):
        yield {kind: next(iterator) for kind, iterator in iterators.items()}


def _stack(examples):
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
