"""Random access to prepared records.

A source has `len` and `source[index]`, pickles, and reads one record at a time.
"""

import bisect
import functools
import itertools
from dataclasses import dataclass

from dav.data import prepare
from dav.errors import DavError


def open_split(root, name, split):
    """The encoded records (dicts as in examples.py) of one split of a prepared data set."""
    folder = split_shards(root, name, split)[0].parent
    import tensorflow_datasets as tfds

    try:
        records = tfds.builder_from_directory(str(folder)).as_data_source(split)
        return Records(records, f"{name} in {folder}")
    except Exception as error:
        raise DavError(
            f"data set {name!r} in {folder} cannot be read ({error}); run --job=prepare to check "
            "and repair it"
        ) from error


def split_shards(root, name, split):
    """The shards of one split of a prepared data set, in order. Raises DavError for none."""
    folder = prepare.find(root, name)
    if folder is None:
        raise DavError(f"data set {name!r} is not prepared below {root}; run --job=prepare first")
    paths = sorted(folder.glob(f"*-{split}.array_record-*"))
    if not paths:
        raise DavError(f"data set {name!r} in {folder} has no split {split!r}")
    return paths


def record_count(path):
    """The number of records in one shard."""
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(str(path)).num_records()


@dataclass(frozen=True)
class Records:
    """The records of one data set; what cannot be read is named."""

    records: object
    name: str

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            return self.records[index]
        except Exception as error:
            raise DavError(
                f"record {index} of data set {self.name} cannot be read; run the same command "
                "with --job=prepare, which finds and rebuilds damaged shards"
            ) from error


@dataclass(frozen=True)
class Concatenated:
    """Several sources, one after the other."""

    sources: tuple

    @functools.cached_property
    def ends(self):
        """The index after each source's last record."""
        return tuple(itertools.accumulate(len(source) for source in self.sources))

    def __len__(self):
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self.ends, index)
        return self.sources[part][index - (self.ends[part - 1] if part else 0)]


@dataclass(frozen=True)
class Subset:
    """A contiguous part of a source, such as one shard's records."""

    source: object
    start: int
    stop: int

    def __len__(self):
        return self.stop - self.start

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.source[self.start + index]


@dataclass(frozen=True)
class Decoded:
    """A source whose records are decoded on access."""

    source: object
    decode: object

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.decode(self.source[index])


@dataclass(frozen=True)
class WithLabels:
    """Examples joined with pseudo-labels that stand one for one beside them."""

    examples: object
    labels: object

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        example, label = self.examples[index], self.labels[index]
        if example["id"] != label["id"]:
            raise DavError(
                f"pseudo-label {index} belongs to {label['id']!r}, its image is {example['id']!r}: "
                "the labels were made from other images; delete them and run --job=label"
            )
        return example | label
