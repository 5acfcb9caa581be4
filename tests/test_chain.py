"""The whole mini recipe with very few steps, on the real sample, as a user runs it."""

import contextlib
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from dav.runtime.checkpoint import latest_step

SHORT = (
    "--config=configs/student.py",
    "--config.steps=6",
    "--config.teacher.steps=4",
    "--config.checkpoint_every=2",
    "--config.teacher.checkpoint_every=2",
    "--config.log_every=2",
    "--config.crop_px=(84, 112)",
    "--config.teacher.crop_px=(84, 112)",
    "--config.short_side_px=84",
    "--config.teacher.short_side_px=84",
    "--config.train_short_side_px=98",
    "--config.teacher.train_short_side_px=98",
)


def final_params(workdir):
    """The finished student's and teacher's whole state as raw bytes, by file content."""
    from dav import folders, recipe
    from dav.main import parse
    from dav.runtime.checkpoint import Checkpoints

    config, _, _ = parse(["dav", *SHORT])
    paths = folders.make_paths(config, workdir)
    teacher = folders.teacher_config(config, paths)
    states = []
    for one, folder in ((config, paths.checkpoints), (teacher, paths.teacher / "checkpoints")):
        shapes = recipe.make_trainer(one).shapes
        with Checkpoints(folder) as checkpoints:
            states.append(checkpoints.restore(one.steps, shapes))
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(states)]


@pytest.fixture(scope="module")
def finished(dav, tmp_path_factory):
    """A work folder in which the short recipe has run undisturbed, and what it printed."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    code, out, err = dav(*SHORT, f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out


def test_the_plan_comes_first_and_every_stage_runs(finished):
    _, out = finished
    plan = out[: out.index("— data")]
    for words in ("3.5 M parameters", "0 of 4 steps", "0 of 6 steps", "4 labelled + 8 unlabelled"):
        assert words in plan
    order = [
        out.index(f"— {stage}") for stage in ("data", "teacher", "labels", "student", "evaluation")
    ]
    assert order == sorted(order)


def test_the_work_folder_holds_what_the_design_says(finished):
    workdir, _ = finished
    rows = json.loads((workdir / "eval.json").read_text())["rows"]
    assert {(row["model"], row["data"]) for row in rows} == {
        (model, data)
        for model in ("student", "teacher", "ramp", "constant")
        for data in ("sample/icl", "sample/tum", "sample/lab", "same sources")
    }
    for row in rows:
        assert 0 < row["abs_rel"] < 1 and 0 < row["delta1"] < 1
        assert row["split"] == "heldout" and row["align"] == "lstsq_disparity"
    assert json.loads((workdir / "config.json").read_text())["steps"] == 6
    assert latest_step(workdir / "checkpoints") == 6
    assert latest_step(workdir / "teacher" / "checkpoints") == 4


def test_metrics_have_every_term(finished):
    workdir, _ = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        terms = [line[f"loss_{name}"] for name in ("labelled", "unlabelled", "features")]
        assert line["loss"] == pytest.approx(sum(terms) / 3, rel=1e-5)
        assert line["kind"] == "train" and line["grad_norm"] > 0 and 0 <= line["tokens_kept"] <= 1
        assert line["images_per_s"] > 0 and 0 <= line["data_wait"] < 1


def test_the_report_is_one_self_contained_page(finished):
    workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    # 24 held-out images of five pictures each, six tasks of four, the newest of training's own.
    own = any(workdir.glob("pictures/*.jpg"))
    assert page.count("<img ") == 24 * 5 + 6 * 4 + own
    assert "teacher: loss by step" in page and "student: loss by step" in page
    assert "the ramp" in page


def test_the_second_run_has_nothing_to_do(dav, finished):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    code, out, _ = dav(*SHORT, f"--workdir={workdir}")
    assert code == 0 and "nothing left to do" in out
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("job", ["prepare", "train", "label", "evaluate"])
def test_each_finished_stage_alone_has_nothing_to_do(dav, finished, job):
    workdir, _ = finished
    code, out, _ = dav(*SHORT, f"--workdir={workdir}", f"--job={job}")
    assert code == 0 and "nothing left to do" in out


def test_another_config_is_refused_and_nothing_is_lost(dav, finished):
    workdir, _ = finished
    code, _, err = dav(*SHORT, "--config.steps=8", f"--workdir={workdir}")
    assert code == 2 and "steps: 6 → 8" in err and "Traceback" not in err
    code, _, err = dav(*SHORT, "--config.teacher.optimizer.encoder_lr=1.0", f"--workdir={workdir}")
    assert code == 2 and "encoder_lr" in err
    assert latest_step(workdir / "checkpoints") == 6


def test_evaluating_on_other_sets_needs_no_new_training(dav, finished):
    workdir, _ = finished
    before = (workdir / "eval.json").read_text()
    code, out, _ = dav(*SHORT, "--config.evaluation.sets=('sample/tum',)", f"--workdir={workdir}")
    assert code == 0 and "— evaluation" in out and "— student" not in out
    rows = json.loads((workdir / "eval.json").read_text())["rows"]
    assert {row["data"] for row in rows} == {"sample/tum"}
    dav(*SHORT, f"--workdir={workdir}")
    assert (workdir / "eval.json").read_text() == before


def wait_for(condition, process, seconds=240):
    """Polls until the condition holds; the process must still be running then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def conditions(workdir):
    """When to kill: in the middle of each stage, with something done and something missing."""

    def exists(pattern):
        return lambda: any(workdir.glob(pattern))

    return {
        "data": exists("data/sample/icl/*"),
        "teacher, first steps": exists("teacher/checkpoints/*"),
        "teacher, saving": exists("teacher/checkpoints/4*"),
        "labels": exists("labels/sample/photos/train/*-00001-of-00004"),
        "student, saving": exists("checkpoints/2*"),
        "student, a step later": exists("checkpoints/4/checksums.json"),
        "evaluation": exists("checkpoints/6/checksums.json"),
        "report": exists("report*"),
    }


def kill_in(stages, start, dav, workdir, undisturbed):
    """Kills the same command in each of the stages, then lets it end; compares what it leaves."""
    for stage in stages:
        process = start(*SHORT, f"--workdir={workdir}")
        wait_for(conditions(workdir)[stage], process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (workdir / "eval.json").exists()
    code, _out, err = dav(*SHORT, f"--workdir={workdir}")
    assert code == 0, err
    for one, other in zip(final_params(undisturbed), final_params(workdir), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (workdir / "eval.json").read_text() == (undisturbed / "eval.json").read_text()
    for shard in undisturbed.glob("labels/sample/photos/train/*of-00004"):
        assert (workdir / shard.relative_to(undisturbed)).read_bytes() == shard.read_bytes()


def test_killed_between_stages_it_completes_with_bit_equal_parameters(
    start, dav, finished, tmp_path
):
    """From a finished teacher on. Within training, tests/test_kill.py kills; the long version, in
    every stage."""
    for name in ("data", "teacher"):
        os.symlink(finished[0] / name, tmp_path / name)
    kill_in(("labels", "evaluation"), start, dav, tmp_path, finished[0])


@pytest.mark.long
def test_killed_in_every_stage_it_completes_with_bit_equal_parameters(
    start, dav, finished, tmp_path
):
    kill_in(conditions(tmp_path), start, dav, tmp_path, finished[0])


@pytest.mark.parametrize(
    "signal_number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_asked_to_stop_it_saves_and_says_so(start, dav, finished, tmp_path, signal_number):
    """From a finished teacher on, so that only the student is trained."""
    undisturbed, _ = finished
    for name in ("data", "teacher", "labels"):
        os.symlink(undisturbed / name, tmp_path / name)
    process = start(*SHORT, f"--workdir={tmp_path}")
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists(), process)
    process.stdout.close()  # as by a `tee` that has got the same Ctrl-C
    process.send_signal(signal_number)
    err = process.stderr.read()
    assert process.wait(timeout=240) == 75 and "Traceback" not in err
    said = [line for line in err.splitlines() if line.startswith("dav: ")]
    assert len(said) == 1 and "saved at step" in said[0]
    step = int(re.search(r"saved at step (\d+)", said[0])[1])
    assert (latest_step(tmp_path / "checkpoints") or 0) == step


def test_a_stop_right_after_resuming_saves_nothing_twice(finished, tmp_path, monkeypatch):
    from dav import folders, train
    from dav.errors import Stopped
    from dav.main import parse
    from dav.runtime import interrupts

    undisturbed, _ = finished
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    config, _, _ = parse(["dav", *SHORT])
    monkeypatch.setattr(interrupts, "stop_request", lambda: contextlib.nullcontext(True))
    with pytest.raises(Stopped, match="saved at step 4 of 6"):
        train.train(config, folders.make_paths(config, tmp_path / "run"))
    assert latest_step(tmp_path / "run" / "checkpoints") == 4


def test_a_damaged_label_shard_is_made_again(dav, finished, tmp_path):
    undisturbed, _ = finished
    shutil.copytree(undisturbed, tmp_path / "run")
    shard = next((tmp_path / "run").glob("labels/sample/photos/train/*-00002-of-00004"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    code, out, err = dav(*SHORT, f"--workdir={tmp_path / 'run'}", "--job=label")
    assert code == 0 and "13/13" in out, err
    assert shard.read_bytes() == whole


@pytest.mark.long  # a quick form is in tests/runtime/test_checkpoint.py
def test_a_damaged_checkpoint_is_named_and_the_one_before_continues(dav, finished, tmp_path):
    undisturbed, _ = finished
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "eval.json").unlink()
    data = max((run / "checkpoints" / "6").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    code, _, err = dav(*SHORT, f"--workdir={run}")
    assert code == 1 and f"{run}/checkpoints/6 is damaged" in err and "Traceback" not in err
    assert "move it to 6.damaged, and run the same command again" in err
    (run / "checkpoints" / "6").rename(run / "checkpoints" / "6.damaged")
    code, out, err = dav(*SHORT, f"--workdir={run}")
    assert code == 0 and "resuming at step 4" in out, err
    assert (run / "eval.json").read_text() == (undisturbed / "eval.json").read_text()


def test_another_teacher_is_not_taken_for_this_recipes(dav, finished, tmp_path):
    undisturbed, _ = finished
    options = (*SHORT, "--config.seed=7", f"--config.teacher_workdir={undisturbed / 'teacher'}")
    options = (*options, f"--config.data.root={undisturbed / 'data'}", f"--workdir={tmp_path}")
    code, _, err = dav(*options, "--job=label")
    assert code == 2 and "seed: 0 → 7" in err
    assert not list(tmp_path.iterdir())


def test_the_teacher_recipe_stands_alone(dav, finished, tmp_path):
    """What the student's error message tells to run gives the very teacher it needs."""
    undisturbed, _ = finished
    options = [o.replace("teacher.", "") for o in SHORT if "teacher." in o]
    code, _out, err = dav(
        "--config=configs/teacher.py",
        *options,
        "--config.log_every=2",
        f"--workdir={tmp_path / 'teacher'}",
        f"--config.data.root={undisturbed / 'data'}",
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "teacher" / "eval.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"teacher", "ramp", "constant"}
    one, other = (
        json.loads((folder / "config.json").read_text())
        for folder in (tmp_path / "teacher", undisturbed / "teacher")
    )
    assert one == other


def test_given_weights_label_as_the_teacher_that_has_them(dav, finished, tmp_path):
    """No teacher is trained then, and the labels' bytes are the same."""
    undisturbed, _ = finished
    options = (*SHORT, f"--config.teacher_weights={undisturbed / 'teacher'}")
    options = (*options, f"--config.data.root={undisturbed / 'data'}", f"--workdir={tmp_path}")
    code, out, err = dav(*options, "--job=plan")
    assert code == 0 and "teacher    " not in out and "4 shards without labels" in out, err
    code, _, err = dav(*options, "--job=label")
    assert code == 0, err
    shards = list(undisturbed.glob("labels/sample/photos/train/*of-00004"))
    assert len(shards) == 4
    for shard in shards:
        assert (tmp_path / shard.relative_to(undisturbed)).read_bytes() == shard.read_bytes()


def test_labels_of_other_images_are_refused(dav, finished, tmp_path):
    undisturbed, _ = finished
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    folder = tmp_path / "run" / "labels" / "sample" / "photos" / "train"
    shards = sorted(folder.glob("*of-00004"))
    exchange(shards[0], shards[2])
    before = contents(folder)
    code, _, err = dav(*SHORT, f"--workdir={tmp_path / 'run'}", "--job=train")
    assert code == 1 and "the labels were made from other images" in err
    assert "Traceback" not in err and contents(folder) == before


def exchange(one, other):
    """Two label shards take each other's place, in the manifest too."""
    lines = [path.parent / "manifest" / f"{path.name}.json" for path in (one, other)]
    for first, second in ((one, other), lines):
        text = first.with_name("?")
        first.rename(text)
        second.rename(first)
        text.rename(second)
    for path, line in zip((one, other), lines, strict=True):
        line.write_text(json.dumps(json.loads(line.read_text()) | {"shard": path.name}))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finetuning_goes_on_from_a_trained_network(dav, finished, tmp_path):
    """In two parts a batch, with a running average, which is what is evaluated then."""
    undisturbed, _ = finished
    code, out, err = dav(
        "--config=configs/finetune.py:mini",
        f"--config.model.weights={undisturbed}",
        f"--config.data.root={undisturbed / 'data'}",
        "--config.data.labelled=('sample/icl',)",
        "--config.evaluation.sets=('sample/icl',)",
        "--config.evaluation.split=heldout",
        "--config.crop_px=(28, 42)",
        "--config.short_side_px=84",
        "--config.train_short_side_px=98",
        "--config.steps=2",
        "--config.batch.labelled=4",
        "--config.accumulate=2",
        "--config.optimizer.ema_decay=0.5",
        f"--workdir={tmp_path}",
    )
    assert code == 0, err
    assert re.search(
        r"labelled   2 steps × 4 a batch = 8 images = 0\.\d\d × \d+ images \(counted", out
    )
    rows = {row["model"]: row for row in json.loads((tmp_path / "eval.json").read_text())["rows"]}
    assert set(rows) == {"finetune", "before", "ramp", "constant"}
    assert rows["finetune"]["abs_rel"] != rows["before"]["abs_rel"]
    assert (tmp_path / "report" / "index.html").exists()
