"""What a recipe's folders are and hold: whose they are, what in them is finished."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from dav.data import label_shards, sources
from dav.errors import ConfigError
from dav.files import local_path
from dav.runtime import checkpoint, workdir
from dav.weights import load

CIRCUMSTANCES = {
    "accumulate",
    "checkpoint_every",
    "evaluation",
    "keep_checkpoints",
    "keep_every",
    "label_batch",
    "label_cost_per_hour",
    "label_lease_s",
    "label_verify",
    "label_wait_s",
    "labels_dir",
    "log_every",
    "mesh",
    "picture_every",
    "profile",
    "stop_after_skipped",
    "teacher_workdir",
    "tensorboard",
    "wandb",
}
# Of these a student's teacher has the student's own.
SHARED_WITH_TEACHER = ("mesh", "picture_every", "stop_after_skipped", "tensorboard", "wandb")
DATA_CIRCUMSTANCES = {"root", "raw", "workers"}


@dataclass(frozen=True)
class Paths:
    """Where a run finds and leaves everything."""

    workdir: Path
    data: Path
    teacher: Path
    labels: Path

    @property
    def checkpoints(self):
        """The folder of the recipe's own checkpoints."""
        return self.workdir / "checkpoints"


def make_paths(config, folder):
    """Where the recipe's files are when it runs in `folder`; ~ is the home folder."""
    folder = _path(folder)
    root = config.data.root
    return Paths(
        workdir=folder,
        data=_path(root or folder / "data"),
        teacher=_path(config.get("teacher_workdir") or folder / "teacher"),
        labels=_path(config.get("labels_dir") or folder / "labels"),
    )


def _path(path):
    return local_path(path).absolute()


def uses_labels(config):
    """Whether the recipe learns from unlabelled images, by a teacher's labels."""
    return "unlabelled" in config.batch


def aligns_features(config):
    """Whether a frozen encoder looks at the unlabelled images too."""
    return uses_labels(config) and config.objective.align_features


def trains_teacher(config):
    """Whether the recipe has a teacher of its own to train."""
    return uses_labels(config) and not config.teacher_weights


def teacher_config(config, paths):
    """The recipe of a student's teacher, reading the same data."""
    own = config.copy_and_resolve_references()
    teacher = own.teacher
    teacher.data.root = str(paths.data)
    teacher.data.workers = config.data.get("workers", 0)
    for name in SHARED_WITH_TEACHER:
        teacher[name] = own[name]
    return teacher


def steps_done(config, paths):
    """Finished and saved steps of a recipe; raises ConfigError if its folder is another's."""
    workdir.check_config(paths.workdir, identity(config))
    return checkpoint.latest_step(paths.checkpoints) or 0


def check_trained(config, paths):
    """Raises ConfigError, with the command to run, unless the recipe's training has finished."""
    done = steps_done(config, paths)
    if done < config.steps:
        raise ConfigError(
            f"the {config.recipe} in {paths.workdir} has {done} of {config.steps} steps; train it "
            "first: the same command without --job, or python -m dav.main "
            f"--config=configs/{config.recipe}.py:{config.preset} --workdir={paths.workdir} "
            f"--config.data.root={paths.data} --job=train"
        )


def identity(config):
    """The config as plain values, without what does not change the weights: where files are, how
    many devices and processes share the work, how often to log and save, what is evaluated."""
    return _without_circumstances(json.loads(config.to_json_best_effort()))


def _without_circumstances(plain):
    kept = {name: value for name, value in plain.items() if name not in CIRCUMSTANCES}
    kept["data"] = {
        name: value for name, value in plain["data"].items() if name not in DATA_CIRCUMSTANCES
    }
    if "teacher" in kept:
        kept["teacher"] = _without_circumstances(kept["teacher"])
    return kept


def label_folder(paths, name):
    """Where the label shards of an unlabelled set stand."""
    return paths.labels / name / "train"


def owns_labels(paths):
    """Whether the labels stand in the work folder itself, and so are of its config alone."""
    return paths.labels.resolve() == paths.workdir.resolve() / "labels"


def label_origin(config, paths):
    """What a label depends on: the teacher, its recipe or its weights and arithmetic, and how it
    looks."""
    look = f"at {config.label_short_side_px} px"
    look += " in few shapes" if config.label_buckets else ""
    look += " and mirrored" if config.label_flip else ""
    if not trains_teacher(config):
        # At the paper's scale it is bfloat16; a teacher of one's own has it in its recipe.
        look += "" if config.model.dtype == "bfloat16" else f", in {config.model.dtype}"
        return f"weights {load.digest(config.teacher_weights)[:16]} {look}"
    recipe = identity(teacher_config(config, paths))
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return f"teacher {digest} {look}"


def missing_label_shards(config, paths, name, *, verify=False):
    """Image shards of `name` without finished labels by this recipe's teacher; with `verify` the
    checksum of every finished one is compared, and damaged ones are forgotten.

    Raises ConfigError if another teacher has labelled there, unless it is the work folder's own.
    """
    folder, origin = label_folder(paths, name), label_origin(config, paths)
    lines = label_shards.read_manifest(folder)
    if not owns_labels(paths):
        for line in lines.values():
            label_shards.refuse_other(folder, line, origin)
    finished = label_shards.finished_shards(folder, origin, lines=lines, verify=verify)
    return [
        path
        for path, records in sources.shard_counts(paths.data, name, "train").items()
        if finished.get(path.name, {}).get("records") != records
    ]
