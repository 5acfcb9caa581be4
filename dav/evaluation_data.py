"""Which records of a prepared data set are evaluated, and by which rules."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from dav.data import sources
from dav.data.examples import decode_example, decode_metric_example
from dav.data.frames import DEPTH_M, DISPARITY, PAIRS
from dav.data.inspect import evenly
from dav.data.prepare import find
from dav.errors import ConfigError, DavError
from dav.evaluation.alignment import ALIGNMENTS
from dav.evaluation.protocols import (
    CROPS,
    SHORT_SIDE_PX,
    SPLITS,
    UNKNOWN_SHIFT,
    UP_TO_SCALE,
    protocol_of,
)
from dav.evaluation.scoring import Rules
from dav.files import checksum
from dav.threads import in_threads

SPACES = ("depth", "disparity")


@dataclass(frozen=True)
class Options:
    """What a user may choose; empty, 0 and None mean what the set's protocol says."""

    split: str = ""
    align: str = ""
    crop: str = ""
    max_depth_m: float = 0.0
    min_depth_m: float | None = None
    space: str = "depth"
    limit: int = 0  # images, evenly spaced; 0: all
    size_px: int | None = SHORT_SIDE_PX  # None: that of the weights' training
    dtype: str = "float32"
    batch_size: int | None = None


@dataclass(frozen=True)
class Chosen:
    """One split of a prepared set with the rules it is evaluated by."""

    name: str
    split: str
    records: object  # sources.Records
    indices: list  # of the records that are evaluated
    rules: Rules
    protocol: dict
    key: str  # of everything that the figures depend on


def check(options):
    """Raises ConfigError for options that cannot work."""
    for name, known in (("align", ALIGNMENTS), ("crop", CROPS), ("space", SPACES)):
        value = getattr(options, name)
        if value and value not in known:
            raise ConfigError(f"unknown --{name}={value}; known: {', '.join(known)}")
    if options.max_depth_m < 0:
        raise ConfigError(f"--max_depth_m={options.max_depth_m:g} must not be negative")
    if options.min_depth_m is not None and options.min_depth_m <= 0:
        raise ConfigError(f"--min_depth_m={options.min_depth_m:g} must be above zero")


def open_records(root, name, options):
    """(split, records) of a data set. Raises DavError if there are none."""
    split = options.split or split_of(root, name, protocol_of(name))
    records = sources.open_split(root, name, split)
    if not len(records):
        raise DavError(f"data set {name!r} has no image in its split {split!r}")
    return split, records


def why_no_truth(name, records):
    """In words why nothing can be evaluated against a data set; "" if it has ground truth."""
    if name in UNKNOWN_SHIFT:
        return "its disparity has an unknown shift, which would decide every figure"
    return "" if records[0]["quantity"] else "it is unlabelled"


def choose(root, name, loaded, options):
    """What is evaluated of a data set, and how. Raises DavError for one without ground truth."""
    published = protocol_of(name)
    split, records = open_records(root, name, options)
    quantity = records[0]["quantity"].decode()
    lacking = why_no_truth(name, records)
    if lacking:
        raise DavError(f"data set {name!r} has no truth to evaluate against: {lacking}")
    indices = evenly(len(records), options.limit or len(records))
    rules = Rules(
        max_depth_m=(options.max_depth_m or published.max_depth_m) if quantity == DEPTH_M else None,
        min_depth_m=published.min_depth_m if options.min_depth_m is None else options.min_depth_m,
        crop=options.crop or published.crop,
        disparity=options.space == "disparity",
    )
    if rules.max_depth_m is not None and rules.min_depth_m >= rules.max_depth_m:
        raise ConfigError(
            f"{name}: the least depth, {rules.min_depth_m:g} m, must be below the cap, "
            f"{rules.max_depth_m:g} m"
        )
    words = in_words(published, quantity, rules, loaded, options)
    words |= count_in_words(published, split, len(indices), len(records))
    words |= {"records_sha256": fingerprint(root, name, split)}
    identity = json.dumps([name, split, indices, words], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()
    return Chosen(name, split, records, indices, rules, words, key)


def split_of(root, name, published):
    """The protocol's split if the set has it, else the first of SPLITS, else the only one."""
    folder = find(root, name)
    if folder is None:
        raise ConfigError(
            f"data set {name!r} is not prepared below {root}; run --job=prepare first"
        )
    found = {path.name.rpartition(".array_record")[0] for path in folder.glob("*.array_record-*")}
    splits = {stem.rpartition("-")[2] for stem in found}
    for split in (published.split, *SPLITS):
        if split in splits:
            return split
    if len(splits) == 1:
        return splits.pop()
    raise ConfigError(f"data set {name!r} has the splits {', '.join(sorted(splits))}; choose one")


def fingerprint(root, name, split):
    """SHA-256 over the shards' recorded checksums, or over names and sizes where none are."""
    shards = sources.split_shards(root, name, split)
    recorded = checksum(shards[0].parent / "checksums.json")
    plain = [[path.name, path.stat().st_size] for path in shards] + [recorded]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def in_words(published, quantity, rules, loaded, options):
    """The whole protocol as plain values; it belongs beside every number."""
    models = {one.model.name: one.sha256 for one in loaded}
    truth = published.truth + (", disparity: 0 is infinitely far" if quantity == DISPARITY else "")
    common = {"source": published.source, "truth": truth}
    network = {"short_side_px": options.size_px, "dtype": options.dtype, "weights_sha256": models}
    resize = "prediction to the truth's size, bilinear, corners aligned; the truth never"
    if quantity == PAIRS:
        mean = "over pairs, equal values count as wrong"
        return common | {"resize": resize, "mean": mean} | network
    hows = {one.model.name: one.model.how for one in loaded}
    alike = set(hows.values())
    in_metres = rules.max_depth_m is not None
    return common | {
        "align": alike.pop() if len(alike) == 1 else hows,
        "space": "depth, and AbsRel in disparity" if rules.disparity else "depth",
        "min_depth_m": rules.min_depth_m if in_metres else None,
        "max_depth_m": rules.max_depth_m,
        "valid": "measured, inside the crop, strictly between the ends"
        if in_metres
        else "measured",
        "clip": "predictions, at both ends after alignment" if in_metres else UP_TO_SCALE,
        "crop": rules.crop,
        "resize": resize,
        "mean": "per image over its valid pixels, then over images",
        **network,
    }


def count_in_words(published, split, count, total):
    """Which images are evaluated, and whether these are the benchmark's."""
    words = {"chosen": "all images" if count == total else f"{count} of {total}, evenly spaced"}
    expected = published.images if split == published.split else 0
    if expected and count != expected:
        words["warning"] = f"{count} of the benchmark's {expected:,} images: not the benchmark"
        if count > expected:
            words["warning"] = f"{count} images, the benchmark has {expected:,}: not the benchmark"
    return words


def read(chosen, indices):
    """Yields (index, example) of the chosen images, decoded ahead in threads."""
    with in_threads(lambda i: decode(chosen.records[chosen.indices[i]]), indices) as reading:
        for index, example in reading:
            yield index, example.result()


def decode(record):
    """A record → {id, image} with `pairs`, or with `depth` float32 and `valid` bool [H, W]: in
    metres, or up to scale where the set's truth is."""
    quantity = record["quantity"].decode()
    if quantity == DEPTH_M:
        example = decode_metric_example(record)
        return example | {"depth": example["depth_m"]}
    example = decode_example(record)
    if quantity == PAIRS:
        return example
    disparity = example.pop("disparity")
    valid = example["valid"] & (disparity > 0)
    return example | {"depth": 1 / np.where(valid, disparity, 1), "valid": valid}
