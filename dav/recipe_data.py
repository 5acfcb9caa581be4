"""Config → the data of a run: which sets, in which shares, read by whom."""

from dav import folders
from dav.data import label_shards, loader, mixture, pipeline, sources, workers
from dav.data.examples import decode_example, decode_target
from dav.errors import ConfigError


def check(config, where="config"):
    """Raises ConfigError for data that no job could read."""
    lists = {"data.labelled": config.data.labelled, "evaluation.sets": config.evaluation.sets}
    lists |= {"data.unlabelled": config.data.get("unlabelled", ())}
    for key, names in lists.items():
        if not all(name and isinstance(name, str) for name in names):
            raise ConfigError(f"{where}.{key}={names} must be names of data sets")
    for kind in config.batch:
        if not config.data[kind]:
            raise ConfigError(
                f"{where}.data.{kind} is empty; name data sets, as "
                f"--{where}.data.{kind}=\"('folder/NAME',)\""
            )
        names, weights = config.data[kind], weights_of(config, kind)
        if weights and len(weights) != len(names):
            raise ConfigError(
                f"{where}.data.{kind}_weights={weights} must have one number for each of the "
                f"{len(names)} {kind} sets, or none"
            )
        if weights:
            mixture.whole_shares(weights, f"{where}.data.{kind}_weights")
    if config.data.get("workers", 0) < -1:
        raise ConfigError(
            f"{where}.data.workers={config.data.workers} must be a number of processes, 0 for "
            "threads, or -1 for a process a core"
        )


def weights_of(config, kind):
    """One weight for each data set of a kind; none: concatenated."""
    return tuple(config.data.get(f"{kind}_weights", ()))


def worker_processes(config):
    """How many processes make batches; 0: threads of this one."""
    asked = config.data.get("workers", 0)
    return workers.usable_cores() if asked < 0 else asked


def make_batches(config, paths, sharding=None):
    """The recipe's batches[step]: of each, what this process's devices hold under `sharding`, or
    the whole."""
    parts = {}
    if "labelled" in config.batch:
        parts["labelled"] = [open_encoded(paths.data, n, "train") for n in config.data.labelled]
    if folders.uses_labels(config):
        names = config.data.unlabelled
        parts["unlabelled"] = [open_pseudo_labelled(config, paths, name) for name in names]
    return pipeline.make_batches(
        parts,
        config.batch.to_dict(),
        weights={kind: weights_of(config, kind) for kind in parts},
        seed=config.seed,
        short_side_px=config.train_short_side_px,
        crop_px=tuple(config.crop_px),
        rows={
            kind: loader.local_rows(sharding, images) if sharding else range(images)
            for kind, images in config.batch.items()
        },
    )


def open_examples(root, names, split):
    """Decoded examples of several data sets, one after the other."""
    parts = tuple(sources.open_split(root, name, split) for name in names)
    return sources.Decoded(sources.Concatenated(parts), decode_example)


def open_encoded(root, name, split):
    """The examples of a data set, their images still encoded."""
    return sources.Decoded(sources.open_split(root, name, split), decode_target)


def open_pseudo_labelled(config, paths, name):
    """The images of an unlabelled set, still encoded, with the teacher's labels."""
    missing = folders.missing_label_shards(config, paths, name)
    if missing:
        raise ConfigError(
            f"{len(missing)} label shards of {name!r} are missing below {paths.labels}; run the "
            "same command with --job=label (or without --job) first"
        )
    counts = sources.shard_counts(paths.data, name, "train")
    return sources.WithLabels(
        open_encoded(paths.data, name, "train"),
        label_shards.open_labels(
            folders.label_folder(paths, name), {path.name: n for path, n in counts.items()}
        ),
    )
