"""Bad input: one clear sentence and the right exit code, before anything is written."""

import errno
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dav.main import main

STUDENT = "--config=configs/student.py"


def refuse(capsys, *arguments):
    """Runs a command that must be refused; returns (exit code, its message)."""
    code = main(["dav", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("dav: "), captured.err
    return code, lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"{STUDENT}:huge"], "unknown preset 'huge'; SIZE: mini, vits"),
        ([STUDENT, "--config.stepz=3"], "stepz"),
        ([STUDENT, "--config.batch.labeled=3"], "labeled"),
        ([STUDENT, "--config.steps=many"], "steps"),
        ([STUDENT, "--job=bake"], "unknown --job=bake; known: auto, prepare"),
        ([STUDENT, "--wrkdir=x"], "wrkdir"),
        ([STUDENT, "train"], "unexpected argument 'train'"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        (["--job=plan"], "--config=FILE is missing"),
        (["--config=", "--config.steps=3"], "--config=FILE is missing"),
    ],
)
def test_wrong_usage_is_refused(capsys, tmp_path, arguments, message):
    workdir = tmp_path / "run"
    code, said = refuse(capsys, *arguments, f"--workdir={workdir}")
    assert code == 2 and message in said
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.model.size=enormous", "model.size='enormous' is not known; known: mini"),
        ("--config.crop_px=(100, 100)", "multiples of 14"),
        ("--config.mesh.fsdp=3", "dav: config.mesh.fsdp=3 does not divide the 1 device"),
        ("--config.data.labelled=('sample/kitchen',)", "sample/kitchen"),
        ("--config.model.encoder_init=dinov2", "encoder_init"),
        ("--config.steps=0", "config.steps=0"),
        ("--config.mesh.fsdp=0", "config.mesh.fsdp=0"),
        ("--config.batch.unlabelled=0", "config.batch.unlabelled=0"),
        ("--config.teacher.batch.labelled=0", "dav: config.teacher.batch.labelled=0"),
        ("--config.teacher.steps=0", "dav: config.teacher.steps=0 must be above"),
        ("--config.teacher.model.dtype=half", "dav: config.teacher.model.dtype='half' is not"),
        ("--config.teacher.data.labelled=()", "dav: config.teacher.data.labelled is empty"),
        ("--config.teacher.model.encoder_init=none", "config.teacher.model.encoder_init='none'"),
        ("--config.teacher.accumulate=3", "config.teacher.batch.labelled=8 does not split"),
        ("--config.label_batch=0", "config.label_batch=0"),
        ("--config.label_lease_s=0.0", "config.label_lease_s=0.0 must be above"),
        ("--config.label_wait_s=-1.0", "config.label_wait_s=-1.0 must be finite"),
        ("--config.data.unlabelled=()", "config.data.unlabelled is empty"),
        ("--config.evaluation.max_depth_m=-1.0", "max_depth_m"),
        ("--config.accumulate=3", "does not split over 1 devices in 3 parts"),
    ],
)
def test_a_config_that_cannot_run_is_refused(capsys, tmp_path, override, message):
    code, said = refuse(capsys, STUDENT, override, f"--workdir={tmp_path}")
    assert code == 2 and message in said


@pytest.mark.parametrize("job", ["plan", "auto", "prepare"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.labelled=('foo'", "data set \"('foo'\" is not in"),
        ("--config.teacher.data.labelled=('foo/bar',)", "data set 'foo/bar' is not in"),
        ("--config.data.unlabelled=('folder/a b',)", "is called folder/NAME"),
        (
            "--config.evaluation.split=foo",
            "split='foo' is none of sample/icl; it has heldout, train",
        ),
    ],
)
def test_data_sets_and_splits_that_there_cannot_be_are_refused_at_once(
    capsys, tmp_path, job, override, message
):
    code, said = refuse(capsys, STUDENT, override, f"--job={job}", f"--workdir={tmp_path}")
    assert code == 2 and message in said and not list(tmp_path.iterdir())


def test_a_split_that_ones_own_set_lacks_is_told_when_the_set_is_made(capsys, tmp_path):
    random, raw = np.random.default_rng(0), tmp_path / "raw/folder/pair"
    for name, pixels in (
        ("rgb", random.integers(0, 256, (30, 40, 3), np.uint8)),
        ("depth", random.integers(500, 900, (30, 40), np.uint16)),
    ):
        (raw / name).mkdir(parents=True)
        cv2.imwrite(str(raw / name / "1.png"), pixels)
    (raw / "dataset.yaml").write_text("images: rgb/*.png\ndepth: depth/*.png\nunit: mm\n")
    options = [f"--config.data.raw={tmp_path / 'raw'}", "--config.evaluation.split=test"]
    options += [f"--config.{key}=('folder/pair',)" for key in ("data.labelled", "evaluation.sets")]
    config = "--config=configs/teacher.py"
    command = [config, *options, "--job=prepare", f"--workdir={tmp_path}"]
    code, said = refuse(capsys, *command)
    assert code == 2 and "split='test' is none of folder/pair; it has train" in said
    made = tmp_path / "data/folder/pair/1.0.0"
    for name in ("dataset_info.json", "folder_pair-train.array_record-00000-of-00001"):
        (made / name).write_bytes(b"{")  # damage is repaired first
    assert refuse(capsys, *command) == (code, said)


@pytest.mark.parametrize("job", ["plan", "auto"])
@pytest.mark.parametrize("key", ["teacher_weights", "teacher.model.encoder_init"])
def test_weights_that_are_not_there_are_refused_before_data_is_prepared(capsys, tmp_path, job, key):
    override = f"--config.{key}=nope"
    code, said = refuse(capsys, STUDENT, override, f"--job={job}", f"--workdir={tmp_path}")
    assert code == 2 and f"config.{key}='nope': no such file" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["vits", "vitb", "vitl"])
def test_paper_scale_says_which_data_it_needs(capsys, tmp_path, preset):
    code, said = refuse(capsys, f"{STUDENT}:{preset}", f"--workdir={tmp_path}")
    assert code == 2 and "config.data.root is empty" in said
    assert all(name in said for name in ("blended_mvs", "hrwsi", "sa1b", "places365"))


def test_a_missing_data_path_is_named(capsys, tmp_path):
    root = f"--config.data.root={tmp_path / 'nowhere'}"
    code, said = refuse(capsys, f"{STUDENT}:vits", root, f"--workdir={tmp_path}")
    assert code == 2 and str(tmp_path / "nowhere") in said


@pytest.mark.parametrize(
    ("job", "message"),
    [("train", "not prepared"), ("label", "not prepared"), ("evaluate", "0 of 200 steps")],
)
def test_a_stage_alone_says_what_it_lacks(capsys, tmp_path, job, message):
    code, said = refuse(capsys, STUDENT, f"--job={job}", f"--workdir={tmp_path}")
    assert code == 2 and message in said


def test_nothing_to_evaluate_on_is_told(capsys, tmp_path):
    nothing = "--config.evaluation.sets=()"
    code, said = refuse(capsys, STUDENT, nothing, "--job=evaluate", f"--workdir={tmp_path}")
    assert code == 2 and "config.evaluation.sets is empty; name the data sets" in said


def test_labels_without_a_teacher_say_how_to_train_it(capsys, tmp_path, sample_root):
    arguments = [STUDENT, f"--workdir={tmp_path}", f"--config.data.root={sample_root}"]
    code, said = refuse(capsys, *arguments, "--job=label")
    assert code == 2 and f"--config=configs/teacher.py:mini --workdir={tmp_path}/teacher" in said
    code, said = refuse(capsys, *arguments, "--job=train")
    assert code == 2 and "4 label shards of 'sample/photos' are missing" in said
    assert "--job=label" in said


def test_a_refused_stage_does_not_claim_the_folder(capsys, tmp_path, sample_root):
    arguments = [STUDENT, f"--workdir={tmp_path}", f"--config.data.root={sample_root}"]
    for job in ("train", "label", "evaluate"):
        refuse(capsys, *arguments, f"--job={job}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("job", ["auto", "prepare"])
def test_a_workdir_that_is_a_file_is_named(capsys, tmp_path, job):
    (tmp_path / "file").write_text("mine")
    code, said = refuse(capsys, STUDENT, f"--workdir={tmp_path / 'file'}", f"--job={job}")
    assert code == 1 and str(tmp_path / "file") in said and "--workdir" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_counts_more_than_the_stop_it_spoiled(capsys):
    from dav.errors import Stopped
    from dav.failure import explain

    full = OSError(errno.ENOSPC, "No space left on device")
    full.__context__ = Stopped("stopped, and saved")
    assert explain(full) == 1 and "no space left" in capsys.readouterr().err


def test_a_full_quota_is_a_full_disk_whatever_library_says_so(capsys):
    from dav.failure import explain

    assert explain(RuntimeError("write failed: Disk quota exceeded [rank 0]")) == 1
    said = capsys.readouterr().err
    assert "no space left" in said and "Traceback" not in said


def test_help_and_an_empty_command_show_the_usage(capsys):
    assert main(["dav", "--help"]) == 0 and "--job=JOB" in capsys.readouterr().out
    assert main(["dav"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--topology=v5e:2x2",), "are for --job=plan"),
        (("--mfu=0.4",), "are for --job=plan"),
        (("--job=plan", "--mfu=40"), "must be above 0, up to 1"),
        (("--job=plan", "--mfu=fast"), "mfu"),
    ],
)
def test_flags_of_the_plan_that_make_no_sense_are_refused(capsys, flags, message):
    assert main(["dav", STUDENT, *flags]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_the_plan_costs_nothing(capsys, tmp_path):
    assert main(["dav", STUDENT, "--job=plan", f"--workdir={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().out
    for word in ("3.5 M parameters", "mesh", "teacher", "labels", "student", "expected", "to do"):
        assert word in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["mini", "vits", "vitb", "vitl"])
@pytest.mark.parametrize("recipe", ["teacher", "student"])
def test_the_plan_of_every_preset_can_be_printed(capsys, tmp_path, recipe, preset):
    config = f"--config=configs/{recipe}.py:{preset}"
    assert main(["dav", config, "--job=plan", f"--workdir={tmp_path}"]) == 0
    assert f"{recipe}:{preset}" in capsys.readouterr().out


def test_a_full_disk_is_one_clear_message_and_nothing_half_written(dav, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        code, _, err = dav(STUDENT, f"--workdir={tmp_path}", "--job=prepare")
        assert code == 1 and "no space left" in err and "Traceback" not in err
        from dav.data import prepare

        assert prepare.find(tmp_path / "data", "sample/icl") is None
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_ctrl_c_at_the_start_is_one_message():
    code = """
import signal, sys
from dav import main
main.parse_all = lambda argv: signal.raise_signal(signal.SIGINT)
sys.exit(main.main(["dav", "--config=x"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 75 and done.stderr.count("\n") == 1
    assert "the same command continues" in done.stderr


def test_the_usage_can_be_read_in_any_encoding(environment):
    command = [sys.executable, "-m", "dav.main", "--help"]
    environment = environment | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and r"v5p:4x4x4, v6e:8x8, \u2026" in done.stdout, done.stderr
