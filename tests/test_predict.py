"""The command dav.predict: from files to files, whatever lies between.

Most tests give it a network that costs nothing; the last ones, real weights in a process of their
own.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from random_weights import random_official_state

import dav
from dav import outputs, predict, predict_run
from dav.errors import ConfigError


class Ramp:
    """A model as dav.load gives it: batches of equal shape; larger further down, and by image."""

    def __init__(self, *, is_metric=False, batch_size=2, value=1.0):
        self.is_metric, self._batch_size, self._value = is_metric, batch_size, value
        self.seen = []

    def predict_each(self, items):
        waiting = {}
        for key, image in items:
            assert image.dtype == np.uint8 and image.shape[2] == 3
            bucket = waiting.setdefault(image.shape, [])
            bucket.append((key, image))
            if len(bucket) == self._batch_size:
                yield from map(self._run, waiting.pop(image.shape))
        for bucket in waiting.values():
            yield from map(self._run, bucket)

    def _run(self, item):
        key, image = item
        self.seen.append(image)
        rows = np.linspace(1, 2, image.shape[0], dtype=np.float32)[:, None]
        return key, self._value * rows * np.float32(1 + image[..., 0].mean() / 255) + 0 * image[
            ..., 0
        ].astype(np.float32)


@pytest.fixture
def model(monkeypatch):
    """The model that dav.load returns; `loads` counts how often."""
    model = Ramp()
    model.loads = []

    def load(spec, *, size_px, dtype="float32", batch_size=None, aspect_buckets=False):
        model.loads.append((spec, size_px, dtype, batch_size, aspect_buckets))
        model.size_px = size_px or 518
        if model.size_px < 14:
            raise ConfigError(f"size_px={size_px} is too small")
        return model

    monkeypatch.setattr(dav, "load", load)
    monkeypatch.setattr("dav.runtime.compiled.keep_programs", lambda folder: None)
    return model


def paint(path, height=20, width=30, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, 50, 60)).save(path)


@pytest.fixture
def photos(tmp_path):
    """Five images of two sizes, among them one that stands upright by EXIF only."""
    for index, name in enumerate(("a.jpg", "b.png", "deep/c.png", "deep/d.webp")):
        paint(tmp_path / "photos" / name, 20, 30 + index % 2, value=40 * index)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "photos" / "turned.jpg", exif=exif)
    return tmp_path / "photos"


def run(*arguments, weights="w"):
    return predict.main(["dav.predict", *map(str, arguments), f"--weights={weights}"])


def files(folder):
    """What lies in a folder, beside its record."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return names - {"predict.json", "maps.jsonl"}


def test_every_kind_of_result_for_every_image(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, f"--out={out}", "--save=png16,npy,color,side_by_side") == 0
    names = ("a", "b", "deep/c", "deep/d", "turned")
    assert files(out) == {name + end for name in names for end in outputs.ENDINGS.values()}
    values = np.load(out / "turned.npy")
    assert values.shape == (30, 20) and values.dtype == np.float32
    decoded, is_metric = outputs.decode_png16(out / "b_depth16.png")
    assert not is_metric
    np.testing.assert_allclose(decoded, np.load(out / "b.npy"), atol=values.max() / 65535)
    assert Image.open(out / "b_side_by_side.jpg").size == (62, 20)
    said = capsys.readouterr()
    assert f"5 maps in {out}, " in said.out.splitlines()[-1] and "images/s" in said.out
    assert "depth 5/5" in said.out and not said.err


def test_each_result_belongs_to_its_image(model, tmp_path):
    """Batches of equal shape change the order; the numbers must still be those of the name."""
    for index in range(9):
        paint(tmp_path / "photos" / f"{index}.png", 20, 30 + index % 3, value=20 * index)
    assert run(tmp_path / "photos", f"--out={tmp_path / 'out'}", "--save=npy") == 0
    for index in range(9):
        values = np.load(tmp_path / "out" / f"{index}.npy")
        assert values.shape == (20, 30 + index % 3)
        np.testing.assert_allclose(values[0], 1 + 20 * index / 255, rtol=1e-6)


def test_metric_maps_are_in_metres(model, photos, tmp_path):
    model.is_metric = True
    assert run(photos / "b.png", f"--out={tmp_path / 'out'}", "--save=png16,npy") == 0
    pixels = np.asarray(Image.open(tmp_path / "out" / "b_depth16.png"))
    np.testing.assert_allclose(pixels / 256, np.load(tmp_path / "out" / "b.npy"), atol=0.5001 / 256)


def test_the_default_is_one_picture_each(model, photos, tmp_path):
    assert run(photos / "a.jpg", "--out", tmp_path / "out") == 0
    assert files(tmp_path / "out") == {"a_color.png"}
    assert model.loads == [("w", None, "float32", None, False)]


def test_broken_images_are_named_skipped_and_counted(model, photos, tmp_path, capsys):
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:400])
    (photos / "empty.png").touch()
    (photos / "deep" / "text.png").write_text("no picture")
    out = tmp_path / "out"
    assert run(photos, f"--out={out}") == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("skipped: cannot read ") for line in lines)
    for name, reason in (("cut.jpg", "truncated"), ("empty.png", "empty"), ("text.png", "not an")):
        assert any(name in line and reason in line for line in lines)
    assert f"5 maps in {out} (3 skipped), " in said.out
    assert len(files(out)) == 5
    assert run(photos, f"--out={out}") == 1  # still not all there, and the weights not needed
    assert f"0 maps in {out} (3 skipped, 5 already done)" in capsys.readouterr().out
    assert len(model.loads) == 1


def test_only_broken_images_need_no_weights_and_leave_nothing(model, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    assert run(tmp_path / "cut.jpg", f"--out={tmp_path / 'out'}") == 1
    assert not model.loads and not (tmp_path / "out").exists()


def test_what_is_done_is_not_done_again(model, photos, tmp_path, capsys):
    out = f"--out={tmp_path / 'out'}"
    assert run(photos / "a.jpg", photos / "b.png", out) == 0 and len(model.seen) == 2
    assert run(photos, out) == 0 and len(model.seen) == 5
    assert "3 maps" in capsys.readouterr().out
    assert run(photos, out) == 0 and len(model.loads) == 2
    assert f"5 maps in {tmp_path / 'out'} already" in capsys.readouterr().out
    (tmp_path / "out" / "b_color.png").unlink()
    assert run(photos, out) == 0 and len(model.seen) == 6
    assert run(photos, out, "--save=color,npy") == 0 and len(model.seen) == 11
    assert run(photos, out, "--save=npy") == 0 and len(model.seen) == 11
    assert run(photos, out, "--overwrite") == 0 and len(model.seen) == 16


def test_a_photograph_that_changed_is_done_again(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, f"--out={out}", "--save=npy,color") == 0
    seen = len(model.seen)
    paint(photos / "a.jpg", 20, 30, value=255)
    os.utime(photos / "b.png", ns=(0, 10**18))
    assert run(photos, f"--out={out}", "--save=npy") == 0 and len(model.seen) == seen + 2
    assert np.load(out / "a.npy")[0, 0] == pytest.approx(2, abs=0.02)
    assert "3 already done" in capsys.readouterr().out
    assert run(photos, f"--out={out}", "--save=npy") == 0 and len(model.seen) == seen + 2
    # The colours still are those of the old ones.
    assert run(photos, f"--out={out}", "--save=color") == 0 and len(model.seen) == seen + 4
    assert run(photos, f"--out={out}", "--save=npy,color") == 0 and len(model.seen) == seen + 4


def test_nothing_to_do_starts_no_network(model, photos, tmp_path):
    out = f"--out={tmp_path / 'out'}"
    assert run(photos, out) == 0
    code = (
        "import sys; from dav import predict; assert predict.main(sys.argv) == 0; "
        "assert not {'jax', 'torch', 'grain', 'tensorflow', 'orbax'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(photos), out, "--weights=w"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "nothing left to do" in done.stdout, done.stderr


def test_another_spec_needs_another_folder(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, f"--out={out}", "--save=npy") == 0
    before = (out / "a.npy").read_bytes()
    for arguments in (("--size_px=252",), ("--dtype=bfloat16",), ("--aspect_buckets",)):
        assert run(photos, f"--out={out}", "--save=npy", *arguments) == 2
    assert run(photos, f"--out={out}", "--save=npy", weights="v") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == (
        f"dav: {out} holds maps made with weights w instead of v; choose another --out, or "
        "--overwrite"
    )
    assert (out / "a.npy").read_bytes() == before
    model._value = 3.0
    assert run(photos / "a.jpg", f"--out={out}", "--save=npy", "--overwrite", weights="v") == 0
    assert (out / "a.npy").read_bytes() != before
    assert json.loads((out / "predict.json").read_text())["weights"] == "v"
    seen = len(model.seen)  # what the old weights made does not count as done
    assert run(photos, f"--out={out}", "--save=npy", weights="v") == 0
    assert len(model.seen) == seen + 4


def test_weights_that_changed_in_place_are_others(model, photos, tmp_path, capsys):
    weights = tmp_path / "w.safetensors"
    weights.touch()
    assert run(photos, f"--out={tmp_path / 'out'}", weights=weights) == 0
    os.utime(weights, (0, 1e9))
    assert run(photos, f"--out={tmp_path / 'out'}", weights=weights) == 2
    assert "of 2001-09-" in capsys.readouterr().err


def test_another_colour_map_needs_another_folder_for_pictures_only(model, photos, tmp_path):
    out = f"--out={tmp_path / 'out'}"
    assert run(photos, out) == 0
    assert run(photos, out, "--colormap=magma") == 2
    assert run(photos, out, "--colormap=magma", "--save=npy") == 0


def test_files_of_others_are_not_overwritten(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.npy").write_text("mine")
    assert run(photos, f"--out={out}", "--save=npy") == 2
    assert "a.npy is there, but nothing says how it was made" in capsys.readouterr().err
    assert files(out) == {"a.npy"} and not model.loads


def test_two_folders_with_the_same_names_do_not_collide(model, tmp_path):
    for folder, value in (("x", 0), ("y", 255)):
        paint(tmp_path / folder / "p" / "1.png", value=value)
    out = tmp_path / "out"
    assert run(tmp_path / "x", tmp_path / "y", f"--out={out}", "--save=npy") == 0
    assert files(out) == {"x/p/1.npy", "y/p/1.npy"}
    assert np.load(out / "y/p/1.npy")[0, 0] == 2 and np.load(out / "x/p/1.npy")[0, 0] == 1
    later = tmp_path / "later"
    assert run(tmp_path / "x", f"--out={later}", "--save=npy") == 0
    assert run(tmp_path / "y", f"--out={later}", "--save=npy") == 0
    assert np.load(later / "p/1.npy")[0, 0] == 1 and len(files(later)) == 2


def test_results_beside_the_photographs_are_no_input(model, photos):
    assert run(photos, f"--out={photos}", "--save=color,side_by_side") == 0
    assert run(photos, f"--out={photos}", "--save=color,side_by_side") == 0
    assert len(model.loads) == 1 and len(files(photos)) == 5 + 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: INPUT, --weights, --out"),
        (["photos", "--weights=w"], "the following arguments are required: --out"),
        (["photos", "--weights=w", "--out=o", "--colours=x"], "--colours=x"),
        (["photos", "--weights=w", "--out=o", "--save=png"], "unknown kind 'png'; known: png16"),
        (["photos", "--weights=w", "--out=o", "--save="], "unknown kind ''"),
        (["photos", "--weights=w", "--out=o", "--colormap=red"], "invalid choice: 'red'"),
        (["photos", "--weights=w", "--out=o", "--size_px=big"], "--size_px: invalid int"),
        (["photos", "--weights=w", "--out=o", "--size_px=3"], "size_px=3 is too small"),
        (["photos", "--weights=w", "--out=o", "--batch_size=0"], "--batch_size=0"),
        (["photos", "--weights=w", "--out=o", "--dtype=float16"], "invalid choice: 'float16'"),
        (["nowhere", "--weights=w", "--out=o"], "no such file or folder: nowhere"),
        (["bare", "--weights=w", "--out=o"], "bare holds no image"),
    ],
)
def test_wrong_usage_is_one_sentence(
    model, photos, tmp_path, monkeypatch, capsys, arguments, message
):
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path)
    assert predict.main(["dav.predict", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("dav: ") and said.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_help_shows_the_command_with_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        predict.main(["dav.predict", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in ("INPUT... --weights=SPEC --out=DIR", "examples:", "side_by_side", "exit codes"):
        assert word in said


def test_an_unusable_out_is_one_sentence(model, photos, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/out"):
        assert run(photos, f"--out={tmp_path / out}") == 1
        said = capsys.readouterr().err
        assert "choose another --out" in said and said.count("\n") == 1


def test_a_full_disk_is_one_sentence_and_nothing_half_written(
    model, photos, tmp_path, monkeypatch, capsys
):
    replace = os.replace
    written = []

    def fail_at_the_third(source, target):
        if str(target).endswith(".npy"):
            if len(written) == 2:
                raise OSError(errno.ENOSPC, "No space left on device", source)
            written.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_third)
    assert run(photos, f"--out={tmp_path / 'out'}", "--save=npy") == 1
    said = capsys.readouterr().err
    assert "no space left" in said and said.count("\n") == 1
    assert len(files(tmp_path / "out")) == 2
    monkeypatch.setattr(os, "replace", replace)
    seen = len(model.seen)  # 3 to 5: the network is ahead of the writer by as much as it gets
    assert run(photos, f"--out={tmp_path / 'out'}", "--save=npy") == 0
    assert len(model.seen) - seen == 3


def test_a_map_that_is_not_finite_is_named_and_counted(model, photos, tmp_path, capsys):
    model._value = np.nan
    assert run(photos / "a.jpg", f"--out={tmp_path / 'out'}") == 1
    assert "a.jpg: its map is not finite" in capsys.readouterr().err
    assert not files(tmp_path / "out")


def test_a_device_out_of_memory_is_one_sentence(model, photos, tmp_path, monkeypatch, capsys):
    def predict_each(items):
        next(iter(items))
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    model.predict_each = predict_each
    assert run(photos, f"--out={tmp_path / 'out'}") == 1
    said = capsys.readouterr().err
    assert "does not fit into memory at --size_px=518" in said and said.count("\n") == 1


def test_an_interrupt_keeps_what_is_finished(model, photos, tmp_path, capsys):
    predict_each = model.predict_each

    def interrupted(items):
        for count, item in enumerate(predict_each(items)):
            if count == 3:
                raise KeyboardInterrupt
            yield item

    model.predict_each = interrupted
    assert run(photos, f"--out={tmp_path / 'out'}") == 75
    assert "the same command continues" in capsys.readouterr().err
    assert len(files(tmp_path / "out")) == 3
    model.predict_each = predict_each
    model.seen.clear()
    assert run(photos, f"--out={tmp_path / 'out'}") == 0 and len(model.seen) == 2


def test_a_large_folder_is_never_held(model, tmp_path, monkeypatch):
    """At most so many images are read ahead of the network, and results unwritten behind it."""
    from dav import threads

    monkeypatch.setattr(threads, "AHEAD", 4)
    for index in range(40):
        paint(tmp_path / "photos" / f"{index:02}.png")
    begun, taken = [], []
    read_job = predict_run.read_job

    def counted(job, **options):
        begun.append(job.name)
        return read_job(job, **options)

    def predict_each(items):
        for key, image in items:
            taken.append(key)
            time.sleep(0.002)
            assert len(begun) - len(taken) <= 4
            yield key, image[..., 0].astype(np.float32)

    monkeypatch.setattr(predict_run, "read_job", counted)
    model.predict_each = predict_each
    assert run(tmp_path / "photos", f"--out={tmp_path / 'out'}", "--save=npy") == 0
    assert len(taken) == 40


def test_the_cache_folder_is_the_user_s_and_never_fatal(tmp_path, monkeypatch):
    import jax

    from dav.errors import DavError
    from dav.runtime import compiled

    updated = {}
    monkeypatch.setattr(jax.config, "update", updated.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled.keep_programs()
    assert updated["jax_compilation_cache_dir"] == str(tmp_path / "cache" / "dav" / "compiled")
    assert updated["jax_persistent_cache_min_compile_time_secs"] == 0
    updated.clear()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    compiled.keep_programs()
    assert "jax_compilation_cache_dir" not in updated
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    compiled.keep_programs("~/c")
    assert updated["jax_compilation_cache_dir"] == str(tmp_path / "home" / "c")
    (tmp_path / "file").touch()
    with pytest.raises(DavError, match="cannot keep compiled programs in"):
        compiled.keep_programs(tmp_path / "file" / "cache")


def test_an_unusable_cache_folder_is_said_and_the_run_goes_on(
    model, photos, tmp_path, monkeypatch, capsys
):
    from dav.errors import DavError

    def refuse(folder):
        raise DavError(f"cannot keep compiled programs in {folder}")

    monkeypatch.setattr("dav.runtime.compiled.keep_programs", refuse)
    assert run(photos, f"--out={tmp_path / 'out'}", "--cache_dir=/proc/x") == 0
    assert "programs in /proc/x; --cache_dir=DIR chooses another" in capsys.readouterr().err


def test_a_terminal_sees_a_bar_and_whole_lines_about_skipped_images(monkeypatch, capsys):
    from dav.runtime.telemetry import Progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress("depth", 3, stream=stream) as progress:
        progress.update(1)
        progress.note("skipped: x")
        progress.update(2)
        progress.update(3)
    assert capsys.readouterr().err == "skipped: x\n"
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert "depth 1/3\r\x1b[K\r\x1b[K" in stream.getvalue().replace("  ", "")


def test_the_rate_leaves_compilation_out_and_takes_batches_whole(monkeypatch):
    from dav.runtime import telemetry

    now = [100.0]
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = telemetry.Progress("depth", 40, batch_s=0.5, stream=stream)
    done = 0
    for seconds in (10, 10):  # two batches of eight, ten seconds each
        now[0] += seconds
        for _ in range(8):
            now[0] += 0.001
            progress.update(done := done + 1)
    now[0] += 70  # a new shape: a minute of compilation
    progress.leave_out(60)
    progress.update(17)
    line = stream.getvalue().splitlines()[-1]
    assert "0.4 images/s" in line and "51 s left" in line  # nine in 20 s, 23 to go


def test_ctrl_c_in_a_process_is_one_message(photos, tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
import dav, test_predict
from dav import predict

class Slow(test_predict.Ramp):
    def predict_each(self, items):
        for pair in super().predict_each(items):
            yield pair
            print("one", flush=True)
            time.sleep(2)

dav.load = lambda spec, **options: Slow()
sys.exit(predict.main(sys.argv))
"""
    command = [sys.executable, "-c", code, photos, f"--out={tmp_path / 'out'}", "--weights=w"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*map(str, command), "--no_cache"], cwd=ROOT, **pipes) as process:
        while process.stdout.readline() != "one\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and err.count("\n") == 2, err
    assert err.startswith("stopping after this step")
    assert "the same command continues" in err
    assert 1 <= len(files(tmp_path / "out")) < 4


def test_ctrl_c_in_the_first_moment_is_one_message():
    """While libraries are imported: here, as the first of them is looked for."""
    code = """
import runpy, signal, sys

class Impatient:
    def find_spec(name, path, target=None):
        if name in ("numpy", "cv2", "PIL"):
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Impatient)
runpy.run_module("dav.predict", run_name="__main__")
"""
    command = [sys.executable, "-c", code, "photos", "--weights=w", "--out=o"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 75 and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_matter(photos, tmp_path, closed):
    """As a scheduler may start it; what it would say goes nowhere, least of all into a result."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import dav, test_predict
from dav import predict

dav.load = lambda spec, **options: test_predict.Ramp()
sys.exit(predict.main(sys.argv))
"""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    command += [photos, f"--out={tmp_path / 'out'}", "--weights=w", "--no_cache"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert len(files(tmp_path / "out")) == 5
    lines = (tmp_path / "out" / "maps.jsonl").read_text().splitlines()
    assert {json.loads(line)["map"] for line in lines} == {"a", "b", "deep/c", "deep/d", "turned"}


# With real weights, in a process of their own.


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A checkpoint of a network as small as they get."""
    from dav.models.depth_anything import Architecture
    from dav.weights.convert import to_params
    from dav.weights.keys import OFFICIAL, make_table
    from dav.weights.load import Weights
    from dav.weights.save import save_official

    tiny = Architecture(64, 4, 1, (0, 1, 2, 3), 8, (8, 8, 8, 8), position_grid=3)
    params = to_params(random_official_state(tiny, 0), make_table(tiny, OFFICIAL), "tiny")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_official(path, Weights(params, tiny, "tiny"))
    return path


def command_in_process(environment, *arguments):
    command = [sys.executable, "-m", "dav.predict", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_mixed_folder_in_a_process(environment, photos, tmp_path, tiny_weights):
    for name in ("cut.jpg", "text.png", "empty.webp"):
        (photos / name).write_bytes((photos / "a.jpg").read_bytes()[:200] * (name == "cut.jpg"))
    options = [f"--weights={tiny_weights}", "--size_px=42", "--save=png16,npy,color,side_by_side"]
    done = command_in_process(environment, photos, *options, f"--out={tmp_path / 'out'}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("skipped: ") == 3 == done.stderr.count("\n")
    assert len(files(tmp_path / "out")) == 5 * 4
    assert np.load(tmp_path / "out" / "turned.npy").shape == (30, 20)


def test_a_size_that_is_too_small_in_a_process(environment, photos, tmp_path, tiny_weights):
    options = [f"--weights={tiny_weights}", "--size_px=3", f"--out={tmp_path / 'out'}"]
    done = command_in_process(environment, photos, *options)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_second_start_finds_the_compiled_programs(environment, photos, tmp_path, tiny_weights):
    environment = {k: v for k, v in environment.items() if not k.startswith("JAX_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    options = [photos / "a.jpg", f"--weights={tiny_weights}", "--size_px=42"]
    cache = tmp_path / "cache" / "dav" / "compiled"
    assert command_in_process(environment, *options, f"--out={tmp_path / '1'}").returncode == 0
    kept = {path.name for path in cache.iterdir() if path.name.endswith("-cache")}
    assert kept
    assert command_in_process(environment, *options, f"--out={tmp_path / '2'}").returncode == 0
    assert kept == {path.name for path in cache.iterdir() if path.name.endswith("-cache")}
    first, second = ((tmp_path / n / "a_color.png").read_bytes() for n in "12")
    assert first == second
