"""Prepared data sets × models → results: what the evaluation's job and command have in common.

Finished sets are kept in DIR/sets, with the pictures of their page. A set is evaluated anew only if
its records, the images chosen of it, the weights or the protocol are others.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from dav.data import sources
from dav.data.examples import decode_example, decode_metric_example
from dav.data.frames import DEPTH_M, PAIRS
from dav.data.inspect import evenly
from dav.data.prepare import find
from dav.errors import ConfigError, DavError
from dav.evaluation import engine, store
from dav.evaluation.alignment import ALIGNMENTS
from dav.evaluation.engine import Model
from dav.evaluation.protocols import CROPS, SPLITS, UP_TO_SCALE, protocol_of
from dav.evaluation.results import SetResult
from dav.evaluation.scoring import Rules
from dav.files import checksum, write_whole
from dav.inference import make_depth_model
from dav.runtime.gathering import gather
from dav.runtime.telemetry import Progress
from dav.threads import in_threads
from dav.weights.load import load_weights

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
    size_px: int = 518
    dtype: str = "float32"
    batch_size: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A model with what identifies its weights."""

    model: Model
    sha256: str  # of the parameters; "" for one that has none


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
    if options.max_depth_m < 0 or (options.min_depth_m or 0) < 0:
        raise ConfigError("--max_depth_m and --min_depth_m must not be negative")


def load(name, spec, options):
    """The model of a weights spec, ready to be asked."""
    weights = load_weights(spec)
    model = make_depth_model(
        weights.params,
        weights.architecture,
        size_px=options.size_px,
        dtype=options.dtype,
        batch_size=options.batch_size,
    )
    how = options.align or ("none" if model.is_metric else "lstsq_disparity")
    if how == "none" and not model.is_metric:
        raise ConfigError(
            f"{spec} predicts disparity up to scale and shift, not metres; --align=none is for "
            "metric weights"
        )
    return Loaded(Model(name, model.predict_each, how, model.is_metric), digest(weights.params))


def digest(params):
    """SHA-256 of a parameter tree: paths, shapes and float32 values, whatever file held them."""
    sha256 = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda p: str(p[0])):
        sha256.update(f"{jax.tree_util.keystr(path)} {leaf.shape}".encode())
        sha256.update(np.ascontiguousarray(leaf, np.float32).data)
    return sha256.hexdigest()


def run(root_of, names, loaded, options, out):
    """The SetResults of the data sets `names`, in order; root_of(name) is where one stands.

    In every process the same; process 0 keeps them below `out`.
    """
    results = []
    for name in names:
        chosen = choose(root_of(name), name, loaded, options)
        path = Path(out) / "sets" / f"{name.replace('/', '_')}-{chosen.split}.msgpack"
        result = stored(path, chosen.key)
        if result is None:
            result = evaluate_set(chosen, loaded)
            if jax.process_index() == 0:
                write_whole(path, store.pack(result, chosen.key))
        results.append(result)
    return results


def stored(path, key):
    """The result that stands in a file, if process 0 finds it there and made from the same."""
    result = None
    if jax.process_index() == 0 and path.exists():
        try:
            result = store.unpack(path.read_bytes(), key)
        except DavError as error:
            print(f"{path}: {error}; evaluating again", flush=True)
    return gather(result)[0]


def choose(root, name, loaded, options):
    """What is evaluated of a data set, and how."""
    published = protocol_of(name)
    split = options.split or split_of(root, name, published)
    records = sources.open_split(root, name, split)
    if not len(records):
        raise DavError(f"data set {name!r} has no image in its split {split!r}")
    quantity = records[0]["quantity"].decode()
    if not quantity:
        raise DavError(f"data set {name!r} is unlabelled; there is no truth to evaluate against")
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
        raise DavError(f"data set {name!r} is not prepared below {root}; run --job=prepare first")
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
    common = {"source": published.source, "truth": published.truth}
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


def evaluate_set(chosen, loaded):
    """Every model's look at one data set, by all processes together."""
    models = [one.model for one in loaded]
    count, total = len(chosen.indices), -(-len(chosen.indices) // jax.process_count())
    with Progress(f"evaluation on {chosen.name}", total, plain_every=1e9) as progress:
        part = engine.look(
            functools.partial(read, chosen),
            count,
            models,
            chosen.rules,
            share=(jax.process_index(), jax.process_count()),
            tell=lambda done, total: progress.update(done),
        )
    part = engine.merge(gather(part), models)
    skipped = tuple(part.skipped.values())
    if not part.scores:
        raise DavError(
            f"data set {chosen.name!r} has no image to evaluate on: all {count} are left out, the "
            f"first, {skipped[0][0]}: {skipped[0][1]}"
        )
    images = hashlib.sha256("\n".join(part.ids.values()).encode()).hexdigest()
    extremes = {
        name: {model: tuple(k for *_, k in kept) for model, kept in getattr(part, name).items()}
        for name in ("best", "worst")
    }
    return SetResult(
        data=chosen.name,
        split=chosen.split,
        protocol=chosen.protocol | {"images_sha256": images},
        images=len(part.scores),
        skipped=skipped,
        figures=engine.mean_figures(part, models),
        samples=tuple(part.samples.values()),
        **extremes,
    )


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
