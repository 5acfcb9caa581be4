"""Random access to prepared records.

A source has `len` and `source[index]`, pickles, and reads one record at a time.
"""

import bisect
import functools
import itertools
from dataclasses import dataclass

from dav.data import prepare
from dav.errors import ConfigError, DavError
from dav.files import read_json

REBUILD = "run the same command with --job=prepare, which finds and rebuilds damaged shards"


def open_split(root, name, split):
    """The encoded records (dicts as in examples.py) of one split of a prepared data set."""
    folder = split_shards(root, name, split)[0].parent
    import tensorflow_datasets as tfds

    try:
        records = tfds.builder_from_directory(str(folder)).as_data_source(split)
        return Records(records, f"data set {name} in {folder}", REBUILD)
    except Exception as error:
        raise DavError(
            f"data set {name!r} in {folder} cannot be read ({error}); run --job=prepare to check "
            "and repair it"
        ) from error


def split_shards(root, name, split):
    """The shards of one split of a prepared data set, in order. Raises ConfigError for none."""
    folder = prepare.find(root, name)
    if folder is None:
        raise ConfigError(
            f"data set {name!r} is not prepared below {root}; run --job=prepare first"
        )
    paths = sorted(folder.glob(f"*-{split}.array_record-*"))
    if not paths:
        raise ConfigError(f"data set {name!r} in {folder} has no split {split!r}")
    return paths


def shard_counts(root, name, split):
    """{path: records} of the shards of one split, in order, as the data set's own description has
    them: no shard is opened, and one that is missing is among them."""
    paths = split_shards(root, name, split)
    described = read_json(paths[0].parent / "dataset_info.json")["splits"]
    lengths = [s["shardLengths"] for s in described if s["name"] == split]
    if not lengths or len(paths) > len(lengths[0]):
        raise DavError(
            f"data set {name!r} in {paths[0].parent} is not what its dataset_info.json says; run "
            "--job=prepare to check and repair it"
        )
    stem = paths[0].name.rpartition("-of-")[0].rpartition("-")[0]
    total = len(lengths[0])
    names = [f"{stem}-{index:05d}-of-{total:05d}" for index in range(total)]
    return {paths[0].parent / n: int(c) for n, c in zip(names, lengths[0], strict=True)}


def open_shard(path, records, features):
    """The encoded records of one shard. Raises DavError if it is damaged or does not hold so many.

    `features` are TFDS's, of `read_features`.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        with open(path, "rb"):  # says whether it is there at all
            reader = ArrayRecordReader(str(path))
        count = reader.num_records()
    except (OSError, RuntimeError, ValueError) as error:
        raise DavError(f"{path} cannot be read ({_first_line(error)})") from error
    if count != records:
        raise DavError(f"{path} has {count} records, not {records}")
    return ShardRecords(reader, str(path), records, features)


def read_features(root, name, split):
    """What decodes the records of a prepared data set's shards."""
    import tensorflow_datasets as tfds

    folder = split_shards(root, name, split)[0].parent
    return tfds.builder_from_directory(str(folder)).info.features


@dataclass(frozen=True)
class ShardRecords:
    """The records of one shard, each read when it is asked for, by any thread."""

    reader: object
    path: str
    records: int
    features: object

    def __len__(self):
        return self.records

    def __getitem__(self, index):
        if not 0 <= index < self.records:
            raise IndexError(index)
        try:
            return self.features.deserialize_example_np(self.reader.read([index])[0])
        except Exception as error:
            message = f"record {index} of {self.path} cannot be read ({_first_line(error)})"
            raise DavError(message) from error


def _first_line(error):
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]


@dataclass(frozen=True)
class Records:
    """The records of one data set or of its labels; what cannot be read is named."""

    records: object
    name: str
    cure: str

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            return self.records[index]
        except Exception as error:
            raise DavError(f"record {index} of {self.name} cannot be read; {self.cure}") from error


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
    """Examples joined with pseudo-labels that stand one for one beside them.

    An image that could not be labelled gives way to the next one that could.
    """

    examples: object
    labels: object

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        for place in itertools.chain(range(index, len(self)), range(index)):
            example, label = self.examples[place], self.labels[place]
            if example["id"] != label["id"]:
                raise DavError(
                    f"pseudo-label {place} belongs to {label['id']!r}, its image is "
                    f"{example['id']!r}: the labels were made from other images; delete them and "
                    "run --job=label"
                )
            if "disparity" in label:
                return example | label
        raise DavError(f"none of the {len(self)} images has a pseudo-label; see label.html")
