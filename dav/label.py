"""The labelling job: the teacher looks once at every clean unlabelled image.

Label shards stand one for one with image shards. A shard is written whole or not at all, so the
job can be stopped anywhere and continues with the shards that are missing.
"""

from dav import recipe
from dav.data import labels
from dav.data.examples import decode_example
from dav.data.sources import Decoded, Subset, open_split, record_count, split_shards
from dav.errors import DavError
from dav.inference import predict_each
from dav.runtime import checkpoint, workdir
from dav.runtime.telemetry import Progress


def label(config, paths):
    """Writes the missing label shards of every unlabelled set of the recipe."""
    missing = missing_shards(config, paths)
    if not any(missing.values()):
        print("labels: every shard is labelled, nothing left to do")
        return
    check_teacher(config, paths)
    with workdir.claim(paths.workdir, recipe.identity(config)):
        predict = recipe.make_predictor(
            recipe.teacher_config(config, paths), paths.teacher / "checkpoints"
        )
        for name, shards in missing.items():
            label_set(config, paths, predict, name, shards)


def missing_shards(config, paths):
    """Image shards without labels, by data set."""
    return {
        name: recipe.missing_label_shards(config, paths, name) for name in config.data.unlabelled
    }


def check_teacher(config, paths):
    """The teacher must have finished its training."""
    teacher = recipe.teacher_config(config, paths)
    done = checkpoint.latest_step(paths.teacher / "checkpoints") or 0
    if done < teacher.steps:
        raise DavError(
            f"the teacher in {paths.teacher} has {done} of {teacher.steps} steps; train it first: "
            "the same command without --job, or python -m dav.main "
            f"--config=configs/teacher.py:{teacher.preset} --workdir={paths.teacher} "
            f"--config.data.root={paths.data} --job=train"
        )


def label_set(config, paths, predict, name, shards):
    """Labels the given shards of one set."""
    images = open_split(paths.data, name, "train")
    folder, origin = recipe.label_folder(paths, name), recipe.label_origin(config, paths)
    progress = Progress(f"labels of {name}", sum(record_count(path) for path in shards))
    start, done = 0, 0
    for path in split_shards(paths.data, name, "train"):
        count = record_count(path)
        if path in shards:
            part = Decoded(Subset(images, start, start + count), decode_example)
            records = label_shard(config, predict, part)
            labels.write_shard(folder, path.name, records, origin)
            done += count
            progress.update(done)
        start += count
    progress.close()


def label_shard(config, predict, examples):
    """The encoded labels of a shard's examples, in their order."""
    names, records = [], {}

    def images():
        for example in examples:
            names.append(example["id"])
            yield example["image"]

    batch_size = recipe.whole_batch(config.label_batch)
    for index, disparity in predict_each(
        predict, images(), short_side_px=config.short_side_px, batch_size=batch_size
    ):
        records[index] = labels.encode_label(names[index], disparity)
    return [records[index] for index in range(len(names))]
