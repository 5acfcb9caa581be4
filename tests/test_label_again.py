"""Labelling that is started again, or beside others: what is kept, made anew, refused."""

import contextlib
import os

import label_data
import numpy as np
import pytest

from dav import folders, label, label_set, label_summary, plan
from dav.data import label_shards, labels
from dav.errors import ConfigError
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
        label_set.open_set(config, paths, "tiny", missing["tiny"], stack)
        assert not any(label.missing_shards(config, paths).values())


def test_labels_that_other_runs_may_read_are_not_replaced(root, command, tmp_path):
    shared = f"--config.labels_dir={tmp_path / 'labels'}"
    finish(*command(shared), shards(root)[0])
    config, paths = command(shared, "--config.label_flip=True", workdir="other")
    looks = "in few shapes, .*in few shapes and mirrored, .*; choose another --config.labels_dir"
    for look in (label.missing_shards, label.label):
        with pytest.raises(ConfigError, match=looks):
            look(config, paths)
    assert len(label.missing_shards(*command(shared, workdir="third"))["tiny"]) == 2


def claim_all(config, paths):
    """The shards that a process labels, and what it says."""
    told = []
    with contextlib.ExitStack() as stack:
        one = label_set.open_set(
            config, paths, "tiny", label.missing_shards(config, paths)["tiny"], stack
        )
        claimed = label_set.claim_shards([one], lambda: None, lambda work, _: work(), told.append)
        return [shard.path for shard in claimed], told


def test_a_teacher_trained_anew_labels_its_own_work_folder_anew(root, command):
    before, paths = command("--config.label_flip=True")
    for path in shards(root):
        finish(before, paths, path)
    config, _ = command()
    claimed, told = claim_all(config, paths)
    assert claimed == shards(root)
    assert len(told) == 1 and "and mirrored, in float32 are made anew by weights" in told[0]
    for path in claimed:
        finish(config, paths, path)
    assert not any(label.missing_shards(config, paths).values())


def test_whoever_labels_otherwise_at_the_same_time_is_refused(root, command, tmp_path):
    shared = f"--config.labels_dir={tmp_path / 'labels'}"
    config, paths = command(shared)
    with contextlib.ExitStack() as stack:
        one = label_set.open_set(config, paths, "tiny", shards(root), stack)
        finish(*command(shared, "--config.label_flip=True", workdir="other"), shards(root)[1])
        claimed = label_set.claim_shards([one], lambda: None, lambda work, _: work(), print)
        assert next(claimed).path == shards(root)[0]
        with pytest.raises(ConfigError, match="and mirrored.*in few shapes"):
            next(claimed)


def test_what_a_kill_at_the_very_end_left_undone_is_made_up_for(root, command, capsys):
    config, paths = command()
    for path in shards(root):
        finish(config, paths, path)
    folder, page = folders.label_folder(paths, "tiny"), paths.workdir / "label.html"
    assert not plan.label_stage(config, paths).done
    label.label(config, paths)
    assert "nothing left to do" in capsys.readouterr().out
    assert "12 of 12 images are labelled" in page.read_text()
    assert len((folder / "manifest.jsonl").read_text().splitlines()) == 3
    assert {path.name for path in paths.workdir.iterdir()} == {
        "labels",
        "config.json",
        "label.html",
    }
    assert not label_shards.work_folder(folder).exists()
    assert plan.label_stage(config, paths).done

    before = {path: path.stat().st_mtime_ns for path in (folder / "manifest.jsonl", page)}
    label.label(config, paths)
    assert {path: path.stat().st_mtime_ns for path in before} == before

    label_shards.forget(folder, label_shards.read_line(folder, shards(root)[0].name))
    finish(config, paths, shards(root)[0])
    os.utime(page, ns=(0, 0))
    label.label(config, paths)
    assert all(path.stat().st_mtime_ns > before[path] for path in before)
