"""A look at prepared data sets: their records, figures of a sample of them, what was left out.

python -m dav.data.inspect DIR        (--help says more)
"""

import functools
import itertools
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np

from dav.data import catalog, statistics, targets
from dav.data.decoding import decode_image
from dav.data.examples import check_size
from dav.data.frames import PAIRS
from dav.data.prepare import MARKER, REPORT
from dav.data.sources import REBUILD, Records
from dav.errors import ConfigError, DavError
from dav.files import read_json
from dav.threads import in_threads

ODDEST = 10
ODDEST_ALIKE = 3
INFO = "dataset_info.json"
DEEPEST = 4  # folders down: one above ROOT/name/config/version
FIELDS = {"id", "image", "target", "quantity", "unit", "growth"}


@dataclass(frozen=True)
class Decoded:
    """One record as it is stored: a map, point pairs or neither."""

    id: str
    image: np.ndarray  # uint8 [H, W, 3] RGB
    quantity: str = ""  # frames.py; empty: unlabelled
    unit: float = 0.0  # of the stored steps; 0: logarithmic
    values: np.ndarray | None = None  # float32 [H, W]
    measured: np.ndarray | None = None  # bool [H, W], without the sky
    sky: np.ndarray | None = None  # bool [H, W]
    points: np.ndarray | None = None  # int32 [N, 2, 2]


@dataclass
class Split:
    """What was seen of one split."""

    name: str
    records: int
    measures: dict = field(default_factory=dict)  # record index → statistics.Measures
    unreadable: list = field(default_factory=list)  # why


@dataclass(frozen=True)
class View:
    """What was seen of one data set."""

    folder: Path
    name: str
    splits: list
    bytes: int
    is_finished: bool
    published: dict  # number of images by split
    report: dict  # of its preparation; empty if there is none
    examples: list  # (split name, Measures, Decoded)
    oddest: list  # (split name, Measures, Decoded, why)


def find_sets(folder):
    """The version folders of the prepared data sets at or below `folder`, through links too."""
    folder = Path(folder)
    found = {
        path.parent for depth in range(DEEPEST + 1) for path in folder.glob("*/" * depth + INFO)
    }
    found = sorted(path for path in found if not path.name.endswith(".incomplete"))
    if not found:
        raise ConfigError(
            f"there is no prepared data set in or below {folder} (none has a {INFO}); "
            "python -m dav.data.prepare makes them"
        )
    return found


def place_of(version_folder):
    """ROOT/NAME/VERSION → (ROOT, NAME); NAME may have two parts, as its report tells."""
    folder = version_folder.absolute().parent
    parts = _report(version_folder).get("name", "").count("/") + 1
    return folder.parents[parts - 1], "/".join(folder.parts[-parts:])


def look(folder, *, most_records=1000, examples=12, tell=lambda done, total: None):
    """The View of the data set in one version folder.

    At most `most_records` of each split, evenly spaced, are read; tell(done, total) after each.
    """
    info, sources = _open(folder)
    report = _report(folder)
    chosen = {s: evenly(len(records), most_records) for s, records in sources.items()}
    total = sum(len(indices) for indices in chosen.values())
    splits, done = [], itertools.count(1)
    for name, records in sources.items():
        split = Split(name, len(records))
        with in_threads(functools.partial(_measure, records), chosen[name]) as measuring:
            for index, result in measuring:
                try:
                    split.measures[index] = result.result()
                except DavError as error:
                    split.unreadable.append(str(error))
                tell(next(done), total)
        splits.append(split)
    name = report.get("name") or info.name
    return View(
        folder=Path(folder),
        name=name,
        splits=splits,
        bytes=sum(path.stat().st_size for path in Path(folder).glob("*.array_record-*")),
        is_finished=(Path(folder) / MARKER).exists() or not catalog.can_build(name),
        published=catalog.builder_of(name).counts if catalog.can_build(name) else {},
        report=report,
        examples=_examples(splits, sources, examples),
        oddest=_oddest(splits, sources),
    )


def _open(folder):
    """TFDS's description of a data set, and its records by split."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        fields = set(builder.info.features)
        sources = {
            split: Records(
                builder.as_data_source(split), f"the data set in {folder}, split {split}", REBUILD
            )
            for split in builder.info.splits
        }
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DavError(f"the data set in {folder} cannot be opened: {reason}") from error
    if fields != FIELDS:
        raise DavError(
            f"the data set in {folder} has the fields {', '.join(sorted(fields))}; those of a set "
            f"that dav can read are {', '.join(sorted(FIELDS))}"
        )
    return builder.info, sources


def _report(folder):
    """What its preparation told, or nothing."""
    path = Path(folder) / REPORT
    report = read_json(path) if path.exists() else {}
    return report if isinstance(report, dict) else {}


def evenly(count, most):
    """At most `most` indices below `count`, evenly spaced, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def decode(record):
    """A record as it is stored. Raises DavError for one that is damaged."""
    name, quantity = record["id"].decode(), record["quantity"].decode()
    image = decode_image(record["image"], name)
    if quantity == PAIRS:
        points = np.asarray(msgpack.unpackb(record["target"]), np.int32).reshape(-1, 2, 2)
        return Decoded(name, image, quantity, points=points)
    if not quantity:
        return Decoded(name, image)
    unit, growth = float(record["unit"]), float(record["growth"])
    values, measured = targets.decode_depth(record["target"], unit, growth, name)
    _, known = targets.decode_disparity(record["target"], unit, growth, quantity, name)
    check_size(image, values, name)
    unit = 0.0 if growth else unit
    return Decoded(name, image, quantity, unit, values, measured, known & ~measured)


def _measure(records, index):
    one = decode(records[index])
    if one.points is not None:
        return statistics.measure_pairs(one.id, one.image, one.points)
    if one.values is None:
        return statistics.measure_image(one.id, one.image)
    scene = one.values, one.measured, one.sky
    return statistics.measure_map(one.id, one.image, one.quantity, one.unit, *scene)


def _seen(splits):
    """(split name, record index, Measures) of everything that could be read."""
    return [(s.name, index, one) for s in splits for index, one in s.measures.items()]


def _examples(splits, sources, count):
    seen = _seen(splits)
    chosen = [seen[i] for i in evenly(len(seen), count)] if seen else []
    return [(name, one, decode(sources[name][index])) for name, index, one in chosen]


def _oddest(splits, sources):
    """The examples that stand out most, at first at most ODDEST_ALIKE for the same figure."""
    seen = _seen(splits)
    scores = statistics.oddness([one for _, _, one in seen]) if len(seen) > 1 else []
    order = sorted(
        (i for i, (score, *_) in enumerate(scores) if score), key=lambda i: -scores[i][0]
    )
    rank, alike = {}, Counter()
    for i in order:
        alike[scores[i][1]] += 1
        rank[i] = alike[scores[i][1]] > ODDEST_ALIKE
    chosen = sorted(order, key=rank.get)[:ODDEST]
    return [
        (seen[i][0], seen[i][2], decode(sources[seen[i][0]][seen[i][1]]), scores[i][2])
        for i in chosen
    ]


if __name__ == "__main__":
    from dav.inspect import main

    sys.exit(main(sys.argv))
