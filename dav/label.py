"""The labelling job: the teacher looks once at every clean unlabelled image.

Label shards stand one for one with image shards. A shard is written whole or not at all, so the
job can be stopped anywhere and continues with the shards that are missing.
"""

from dav import folders, recipe_network
from dav.data import labels
from dav.data.examples import decode_example
from dav.data.sources import Decoded, Subset, open_split, record_count, split_shards
from dav.errors import DavError
from dav.inference import predict_each
from dav.runtime import workdir
from dav.runtime.telemetry import Progress


def label(config, paths):
    """Writes the missing label shards of every unlabelled set of the recipe."""
    workdir.check_config(paths.workdir, folders.identity(config))
    if not folders.uses_labels(config):
        print(f"labels: the {config.recipe} uses no unlabelled images, nothing to do")
        return
    missing = missing_shards(config, paths)
    if not any(missing.values()):
        print("labels: every shard is labelled, nothing left to do")
        return
    predict = make_teacher(config, paths)
    with workdir.claim(paths.workdir, folders.identity(config)):
        for name, shards in missing.items():
            label_set(config, paths, predict, name, shards)


def make_teacher(config, paths):
    """(images uint8 [B, H, W, 3]) → disparity, by the teacher. Raises DavError if it is not
    trained."""
    if not folders.trains_teacher(config):
        return recipe_network.make_foreign_predictor(config, config.teacher_weights)
    teacher = folders.teacher_config(config, paths)
    folders.check_trained(teacher, folders.make_paths(teacher, paths.teacher))
    return recipe_network.make_predictor(teacher, paths.teacher / "checkpoints")


def missing_shards(config, paths):
    """Image shards without labels, by data set."""
    return {
        name: folders.missing_label_shards(config, paths, name) for name in config.data.unlabelled
    }


def label_set(config, paths, predict, name, shards):
    """Labels the given shards of one set."""
    images = open_split(paths.data, name, "train")
    counts = {path: record_count(path) for path in split_shards(paths.data, name, "train")}
    if sum(counts.values()) != len(images):
        raise DavError(
            f"data set {name!r} in {paths.data} has {sum(counts.values())} of its {len(images)} "
            "records: a shard is damaged; --job=prepare finds and rebuilds it"
        )
    folder, origin = folders.label_folder(paths, name), folders.label_origin(config, paths)
    start = done = 0
    with Progress(f"labels of {name}", sum(counts[path] for path in shards)) as progress:
        for path, count in counts.items():
            if path in shards:
                part = Decoded(Subset(images, start, start + count), decode_example)
                records = label_shard(config, predict, part)
                labels.write_shard(folder, path.name, records, origin)
                done += count
                progress.update(done)
            start += count


def label_shard(config, predict, examples):
    """The encoded labels of a shard's examples, in their order."""
    names, records = [], {}

    def images():
        for example in examples:
            names.append(example["id"])
            yield example["image"]

    batch_size = recipe_network.whole_batch(config.label_batch)
    for index, disparity in predict_each(
        predict, images(), short_side_px=config.label_short_side_px, batch_size=batch_size
    ):
        records[index] = labels.encode_label(names[index], disparity)
    return [records[index] for index in range(len(names))]
