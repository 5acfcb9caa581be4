"""A data set being labelled: its shards are claimed, put in place, found damaged or finished."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import jax

from dav import folders, label_run, label_summary
from dav.data import label_shards, sources
from dav.errors import DavError
from dav.runtime.claims import Claims

GOLDEN = 0.6180339887  # multiples of it are spread evenly, however many there are


@dataclass(eq=False)
class UnlabelledSet:
    """A data set being labelled."""

    name: str
    folder: Path  # of its labels
    origin: str
    features: object
    missing: dict  # {image shard: records}; what anybody finishes goes
    whole: int  # images of all its shards
    claims: Claims
    own: bool = True  # its labels are the work folder's own
    since: float = 0.0  # the file system's time when this process began
    damaged: dict = field(default_factory=dict)  # {image shard: why it cannot be read}
    found: list = field(default_factory=list)  # those of them that this process has found itself
    others: list = field(default_factory=list)  # teachers whose labels are made anew
    lost: int = 0  # images of the damaged ones


def open_set(config, paths, name, missing, stack):
    """The UnlabelledSet of the shards `missing`; its claims are released with `stack`."""
    folder = folders.label_folder(paths, name)
    counts = sources.shard_counts(paths.data, name, "train")
    work = label_shards.work_folder(folder)
    claims = stack.enter_context(Claims(work, lease_s=config.label_lease_s))
    return UnlabelledSet(
        name=name,
        folder=folder,
        origin=folders.label_origin(config, paths),
        features=sources.read_features(paths.data, name, "train"),
        missing={path: counts[path] for path in missing},
        whole=sum(counts.values()),
        claims=claims,
        own=folders.owns_labels(paths),
        since=claims.now(),
    )


def claim_shards(sets, check, with_room, tell):
    """Claims one missing shard after the other and gives them as ShardInHand, until there is none
    that is free; each process begins at a place of its own."""
    shards = [(one, path) for one in sets for path in one.missing]
    begin = int(GOLDEN * process_number() % 1 * len(shards))
    for one, path in shards[begin:] + shards[:begin]:
        check()
        if path not in one.missing:
            continue
        if not with_room(lambda one=one, path=path: one.claims.take(path.name), one.folder):
            continue
        records = one.missing[path]
        if damage := label_shards.damage_of(one.folder, path.name, one.since):
            lose(one, path, damage)  # another process has found it, since this one began
        line = label_shards.read_line(one.folder, path.name)
        if damage or label_shards.is_whole(one.folder, line, one.origin, records):
            one.claims.release(path.name)
            one.missing.pop(path, None)
            continue
        clear_other(one, line, tell)
        try:
            yield label_run.ShardInHand(
                one.name, path, sources.open_shard(path, records, one.features)
            )
        except DavError as error:
            yield label_run.ShardInHand(one.name, path, None, damage=str(error))


def clear_other(one, line, tell):
    """Makes room in a work folder's own labels where another teacher has labelled before; raises
    ConfigError where other runs may need his."""
    if not one.own:
        label_shards.refuse_other(one.folder, line, one.origin)
    elif line and line["teacher"] != one.origin:
        label_shards.forget(one.folder, line)
        if line["teacher"] not in one.others:
            one.others.append(line["teacher"])
            tell(f"labels in {one.folder} by {line['teacher']} are made anew by {one.origin}")


def process_number():
    """The place of this process among those that label together, as far as it can be told."""
    known = os.environ.get
    if "JOB_COMPLETION_INDEX" in os.environ:  # a Kubernetes Indexed Job
        return int(known("JOB_COMPLETION_INDEX"))
    if "SLURM_PROCID" in os.environ:
        task = int(known("SLURM_ARRAY_TASK_ID", 0)) * int(known("SLURM_NTASKS", 1))
        return task + int(known("SLURM_PROCID"))
    return jax.process_index()


def write_shard(one, shard, teacher):
    """Puts a shard's labels in place and gives it up; returns its number of images."""
    if shard.damage:
        label_shards.list_damaged(one.folder, shard.path.name, shard.damage, me=one.claims.me)
        lose(one, shard.path, shard.damage)
        one.found.append(shard.path)
        images = 0
    else:
        line = label_summary.describe_shard(shard, teacher, one.origin)
        records = [shard.labels[index] for index in range(len(shard.records))]
        label_shards.commit(one.folder, shard.path.name, records, line, me=one.claims.me)
        images = len(records)
    one.claims.release(shard.path.name)
    one.missing.pop(shard.path, None)
    return images


def lose(one, path, reason):
    """Takes note of an image shard that cannot be labelled."""
    one.damaged[path] = reason
    one.lost += one.missing.pop(path, 0)


def survey(sets):
    """Takes note of the shards that other processes have finished."""
    for one in sets:
        for path in label_shards.finished_since(one.folder, one.since, one.origin, one.missing):
            one.missing.pop(path, None)
