"""Labelling that is started again, or beside others: what is kept, made anew, refused."""

import contextlib

import label_data
import numpy as np
import pytest

from dav import folders, label, label_summary
from dav.data import label_shards, labels
from dav.label_run import ShardInHand
from dav.label_teacher import Teacher
from dav.main import parse

TEACHER = Teacher(None, 1, "some device", 1, 56, True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a data set of three shards and a teacher."""
    root = tmp_path_factory.mktemp("again")
    label_data.make(root, 3, damage=False)
    return root


@pytest.fixture
def command(root, tmp_path):
    """command(option, …, workdir=name) → config and paths of a labelling below tmp_path."""

    def configure(*options, workdir="run"):
        arguments = [
            "dav",
            "--config=configs/student.py",
            f"--config.data.root={root / 'data'}",
            "--config.data.unlabelled=('tiny',)",
            f"--config.teacher_weights={root / 'teacher.safetensors'}",
        ]
        config, *_ = parse([*arguments, *options])
        return config, folders.make_paths(config, tmp_path / workdir)

    return configure


def shards(root):
    return sorted((root / "data").glob("tiny/**/*array_record*"))


def finish(config, paths, path):
    """Labels a shard as one process of many does."""
    shard = ShardInHand("tiny", path, [None] * 4, seconds=1.0)
    for index in range(4):
        disparity = np.full((56, 84), index + 1, np.float32)
        shard.ids[index] = str(index)
        shard.labels[index] = labels.encode_label(str(index), disparity)
        shard.figures[index] = labels.describe(disparity)
    line = label_summary.describe_shard(shard, TEACHER, folders.label_origin(config, paths))
    found = [shard.labels[index] for index in range(4)]
    label_shards.commit(folders.label_folder(paths, "tiny"), path.name, found, line, me="me")


def test_a_check_of_all_checksums_keeps_what_others_finish_meanwhile(root, command):
    config, paths = command("--config.label_verify=True")
    first, *others = shards(root)
    for path in others:
        finish(config, paths, path)
    missing = label.missing_shards(config, paths, verify=True)
    assert missing == {"tiny": [first]}
    finish(config, paths, first)
    with contextlib.ExitStack() as stack:
        label.open_set(config, paths, "tiny", missing["tiny"], stack)
        assert not any(label.missing_shards(config, paths).values())
