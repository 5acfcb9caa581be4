"""What a run tells, through the training job itself: mostly of a student's step that does no more
than return figures, on batches of noise; where parameters matter, of a tiny teacher's real one."""

import dataclasses
import json
import struct
import sys
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from dav import folders, pictures, recipe, recipe_data, recipe_update, train, watch
from dav.data import loader
from dav.errors import ConfigError, DavError
from dav.files import read_lines
from dav.main import parse
from dav.models.depth_anything import SIZES, Architecture
from dav.runtime import parallel, processes
from dav.runtime.checkpoint import Checkpoints
from dav.step import TrainState, strong_view

OPTIONS = (
    "--config.steps=6",
    "--config.batch.labelled=2",
    "--config.crop_px=(28, 42)",
    "--config.checkpoint_every=2",
    "--config.log_every=2",
    "--config.stop_after_skipped=2",
)
TINY = Architecture(16, 4, 1, (0, 1, 2, 3), 8, (4, 8, 12, 16), position_grid=3)
FIELDS = [field.name for field in dataclasses.fields(TrainState)]
TERMS = ("labelled", "unlabelled", "features")


def config_of(*options, recipe="student"):
    if recipe == "student":
        options = ("--config.batch.unlabelled=3", *options)
    return parse(["dav", f"--config=configs/{recipe}.py", *OPTIONS, *options])[0]


class Noise:
    """batches[step] of noise, of so many images by kind."""

    def __init__(self, **images):
        self.images = images

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, step):
        rng = np.random.default_rng(step)
        batch = {}
        for kind, images in self.images.items():
            disparity = rng.random((images, 28, 42), dtype=np.float32)
            valid = rng.random(disparity.shape) < 0.9
            image = rng.integers(0, 256, (*disparity.shape, 3), dtype=np.uint8)
            batch[kind] = {"image": image, "disparity": disparity, "valid": valid}
        return batch


def figures_of(step, bad):
    """A student's metrics at a step (from 1); those of `bad` steps as of an update left out."""
    rng = np.random.default_rng(step)
    terms = {f"loss_{name}": rng.random() for name in TERMS}
    norms = {f"grad_norm_{group}": rng.random() for group in ("encoder", "decoder")}
    figures = {"loss": sum(terms.values()) / 3, **terms, **norms, "tokens_kept": rng.random()}
    figures["grad_norm"] = float(np.hypot(*norms.values()))
    if step in bad:
        figures |= {"loss": np.nan, "loss_unlabelled": np.nan, "grad_norm": np.inf}
    left_out = [one for one in bad if one <= step]
    return figures | {"skipped": len(left_out), "skipped_in_row": len(left_out) * (step in bad)}


def make_figures_only(bad):
    """A Trainer whose step only counts and returns figures."""
    mesh = parallel.make_mesh()
    whole = parallel.replicated(mesh)
    shape = jax.ShapeDtypeStruct((), np.int32, sharding=whole)

    def step(state, frozen, batch):
        done = int(state.step) + 1
        figures = {name: jnp.float32(value) for name, value in figures_of(done, bad).items()}
        return dataclasses.replace(state, step=jax.device_put(np.int32(done), whole)), figures

    def init():
        return TrainState(*(jax.device_put(np.zeros((), np.int32), whole) for _ in FIELDS))

    return recipe.Trainer(mesh, TrainState(*[shape] * len(FIELDS)), init, tuple, step)


def look_at_nothing(params, batch, step):
    """What `pictures.make_look` makes, without a network."""
    part = {name: values[:4] for name, values in batch["unlabelled"].items()}
    maps = {"target": part["disparity"], "prediction": part["disparity"] + step}
    more = {"seen": part["image"] / 255, "valid": part["valid"], "mask": part["valid"] & False}
    return {"image": part["image"]} | maps | more


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(*options, name=…, bad=…) trains in tmp_path/name and returns that folder; the updates of
    `bad` steps are left out, for a loss that is not finite."""
    monkeypatch.setattr(pictures, "make_look", lambda config, mesh: look_at_nothing)
    monkeypatch.setattr(
        recipe_data, "make_batches", lambda config, paths, sharding: Noise(labelled=2, unlabelled=3)
    )
    monkeypatch.setattr(watch.perf, "peak_flops_per_s", lambda: 1e12)

    def start(*options, name="run", bad=()):
        monkeypatch.setattr(recipe, "make_trainer", lambda config: make_figures_only(bad))
        config = config_of(*options)
        train.train(config, folders.make_paths(config, tmp_path / name))
        return tmp_path / name

    return start


def without_times(lines):
    timed = {"images_per_s", "data_wait", "mfu", "step_s_p50", "step_s_p95", "save_s", "restore_s"}
    timed |= {"productive_s", "goodput", "starts"}
    return [{name: line[name] for name in line if name not in timed} for line in lines]


def scalars(folder):
    """{tag: [steps]} in all event files of a run as TensorBoard shows it, later events than a
    restart's step dropped there; and the steps of the pictures."""
    found, shown = {}, []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.HasField("session_log"):
                found = {tag: [s for s in found[tag] if s < event.step] for tag in found}
                shown = [step for step in shown if step < event.step]
            for value in event.summary.value:
                if value.HasField("image"):
                    shown.append(event.step)
                else:
                    found.setdefault(value.tag, []).append(event.step)
    return found, shown


class FakeWandb(types.ModuleType):
    """Takes a run's rows as the service does: a step once, in order."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.rows, self.exits = [], {}, []

    def init(self, **options):
        self.started.append(options)
        return types.SimpleNamespace(
            step=max(self.rows, default=-1) + 1,
            log=lambda row, step: self.rows.setdefault(step, {}).update(row),
            finish=lambda exit_code: self.exits.append(exit_code),
        )

    def Image(self, image):
        return image.shape


def test_every_line_has_all_figures(run):
    folder = run()
    lines = read_lines(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        terms = [line[f"loss_{name}"] for name in TERMS]
        assert line["kind"] == "train" and line["loss"] == pytest.approx(sum(terms) / 3, rel=1e-5)
        shares = [line[f"share_{name}"] for name in TERMS]
        assert sum(shares) == pytest.approx(1)
        assert shares[0] == pytest.approx(terms[0] / sum(terms))
        assert line["grad_norm_encoder"] > 0 and line["grad_norm_decoder"] > 0
        # Means over the same steps: each norm is no greater than the whole's, nor is it far below.
        assert max(line["grad_norm_encoder"], line["grad_norm_decoder"]) <= line["grad_norm"]
        assert line["skipped"] == line["skipped_in_row"] == 0 and 0 <= line["tokens_kept"] <= 1
        assert line["images_per_s"] > 0 and 0 <= line["data_wait"] <= 1
        flops = recipe.step_flops(config_of())
        assert line["mfu"] == pytest.approx(flops * line["images_per_s"] / 5 / 1e12)
        assert 0 < line["step_s_p50"] <= line["step_s_p95"] and 0 < line["goodput"] <= 1
    config = config_of()
    rates = [
        recipe_update.schedule(config.optimizer.decoder_lr, config)(step) for step in (1, 3, 5)
    ]
    assert [line["lr_decoder"] for line in lines] == pytest.approx([float(r) for r in rates])
    assert lines[0]["lr_encoder"] < lines[0]["lr_decoder"]
    assert not (folder / "pictures").exists() and not (folder / "tensorboard").exists()


def test_a_line_holds_the_means_of_its_steps(run):
    each = read_lines(run("--config.log_every=1", name="each") / "metrics.jsonl")
    pairs = read_lines(run(name="pairs") / "metrics.jsonl")
    for name in ("loss", "loss_features", "grad_norm", "tokens_kept"):
        means = [(a[name] + b[name]) / 2 for a, b in zip(each[::2], each[1::2], strict=True)]
        assert [line[name] for line in pairs] == pytest.approx(means, rel=1e-5)
    assert "images_per_s" not in each[0] and each[1]["images_per_s"] > 0


def test_pictures_and_boards_do_not_change_what_is_learned(quickly, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    monkeypatch.setattr(
        recipe_data, "make_batches", lambda config, paths, sharding: Noise(labelled=2)
    )
    trainer, learned, told = quickly, [], []
    monkeypatch.setattr(recipe, "make_trainer", lambda config: trainer)
    watched = ("--config.picture_every=1", "--config.tensorboard=True", "--config.wandb=p")
    for name, options in {"seen": watched, "unseen": ()}.items():
        config = config_of("--config.steps=3", *options, recipe="teacher")
        train.train(config, folders.make_paths(config, tmp_path / name))
        told.append(without_times(read_lines(tmp_path / name / "metrics.jsonl")))
        with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
            learned.append(jax.tree.leaves(checkpoints.restore(3, trainer.shapes)))
    assert len(list((tmp_path / "seen" / "pictures").iterdir())) == 3
    for one, other in zip(*learned, strict=True):
        np.testing.assert_array_equal(one, other)
    assert told[0] == told[1] and len(told[0]) == 2


def test_every_n_steps_there_is_a_picture(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := FakeWandb())
    options = ("--config.picture_every=3", "--config.tensorboard=True", "--config.wandb=depth")
    folder = run(*options)
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["3.jpg", "6.jpg"]
    shape = (24 + 3 * 28, 4 * 42, 3)  # three rows of four, and the heads
    assert cv2.imread(str(folder / "pictures" / "6.jpg")).shape == shape
    found, shown = scalars(folder)
    assert shown == [3, 6] and found["train/loss_features"] == [2, 4, 6]
    assert wandb.rows[6]["picture"] == shape
    assert wandb.started[0]["project"] == "depth" and wandb.started[0]["resume"] == "allow"
    again = run(*options, name="again")
    assert (again / "pictures/6.jpg").read_bytes() == (folder / "pictures/6.jpg").read_bytes()


def test_a_resumed_run_tells_every_step_once(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := FakeWandb())
    options = ("--config.tensorboard=True", "--config.wandb=depth", "--config.log_every=1")
    folder = run(*options)
    before, sent = read_lines(folder / "metrics.jsonl"), json.dumps(wandb.rows)
    assert not any("restore_s" in line for line in before)
    # As if it had been killed after step 6 was told, and before it was saved.
    (folder / "checkpoints" / "6").rename(folder / "gone")
    assert run(*options) == folder
    lines = read_lines(folder / "metrics.jsonl")
    assert without_times(lines) == without_times(before)
    assert [line["step"] for line in lines if line.get("restore_s", 0) > 0] == [5]
    found, _ = scalars(folder)
    assert found["train/loss"] == [1, 2, 3, 4, 5, 6]
    assert json.dumps(wandb.rows) == sent and len(wandb.rows) == 6
    assert len({options["id"] for options in wandb.started}) == 1 and wandb.exits == [0, 0]
    assert wandb.started[0]["id"] == (folder / "wandb_id").read_text()


def test_damaged_logs_stop_no_run(run, capsys):
    folder = run()
    (folder / "checkpoints" / "6").rename(folder / "gone")
    logs = [folder / "metrics.jsonl", folder / "starts.jsonl"]
    for path in logs:
        path.write_bytes(path.read_bytes() + b"\0" * 99 + b"\n")
    run()
    said = capsys.readouterr().err
    assert f"{logs[0]} is damaged from line 4 on" in said
    assert f"{logs[1]} is damaged from line 2 on" in said
    lines = read_lines(logs[0])
    assert [line["step"] for line in lines] == [2, 4, 6] and lines[-1]["starts"] == 2
    assert len(read_lines(logs[1])) == 2


def test_steps_that_are_asked_for_are_profiled(run, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: calls.append(path))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    folder = run("--config.profile=(2, 4)", name="whole")
    assert calls == [folder / "profile", "stop"]
    run("--config.profile=(5, 40)", name="to the end")  # the run ends within
    assert calls[2:] == [folder.parent / "to the end" / "profile", "stop"]
    with pytest.raises(ConfigError, match="profile=.4, 2. must be two steps, the first one first"):
        recipe.check(config_of("--config.profile=(4, 2)"))


def test_an_update_that_is_left_out_is_told_and_the_run_goes_on(run, capsys):
    folder = run("--config.log_every=1", bad=(3,))
    lines = read_lines(folder / "metrics.jsonl")
    assert "NaN" not in (folder / "metrics.jsonl").read_text()
    assert lines[2]["loss"] is lines[2]["loss_unlabelled"] is lines[2]["share_features"] is None
    assert lines[2]["loss_labelled"] > 0
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert lines[2]["lr_decoder"] == lines[1]["lr_decoder"] < lines[3]["lr_decoder"]
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1 and "update 3" in said[0] and "loss_unlabelled was not finite" in said[0]


@pytest.mark.parametrize("first", [True, False])
def test_too_many_left_out_end_the_run_in_every_process(run, monkeypatch, first):
    monkeypatch.setattr(processes, "is_first", lambda: first)
    with pytest.raises(DavError, match=r"2 updates .* step 5, .* loss_unlabelled: .*batches\[3\]"):
        run(bad=(4, 5, 6))


def test_only_the_first_process_writes(run, monkeypatch, capsys):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    folder = run("--config.picture_every=2", "--config.tensorboard=True")
    files = {path.name for path in folder.iterdir()}
    assert files == {"checkpoints", "config.json", "lock"} and "loss" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "module"), [("tensorboard=True", "tensorboardX"), ("wandb=depth", "wandb")]
)
def test_a_board_without_its_extra_is_refused_before_training(run, monkeypatch, option, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[(tensorboard|wandb)\]'"):
        run(f"--config.{option}")


def test_a_service_that_refuses_is_told(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := FakeWandb())
    monkeypatch.setattr(wandb, "init", lambda **options: 1 / 0)
    with pytest.raises(DavError, match="did not start .division.*WANDB_MODE=offline"):
        run("--config.wandb=depth")


def random_state(shapes):
    """A TrainState of those shapes, without compiling how a network begins."""
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)
    params = jax.tree.map(
        lambda leaf: jax.device_put(0.1 * rng.standard_normal(leaf.shape, np.float32)),
        shapes.params,
    )
    return dataclasses.replace(state, params=params)


@pytest.fixture(scope="module")
def quickly():
    """The trainer of a tiny teacher; programs are compiled quickly, not well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "mini", TINY)
        jax.config.update("jax_disable_most_optimizations", True)
        trainer = recipe.make_trainer(config_of(recipe="teacher"))
        yield dataclasses.replace(trainer, init=lambda: random_state(trainer.shapes))
        jax.config.update("jax_disable_most_optimizations", False)


def test_the_picture_shows_what_the_step_saw(quickly):
    config, batch = config_of(), Noise(unlabelled=3)[4]
    placed = loader.to_device(batch, parallel.batch_sharding(quickly.mesh))
    look = pictures.make_look(config, quickly.mesh)
    shown = jax.device_get(look(quickly.init().params, placed, np.int32(4)))
    images, masks = jax.jit(lambda x: strong_view(x, config.seed, 4))(batch["unlabelled"]["image"])
    assert masks.any() and not masks.all()
    np.testing.assert_array_equal(shown["mask"], masks)
    np.testing.assert_allclose(shown["seen"], images, atol=1e-6)
    for name, told in {"disparity": "target", "valid": "valid"}.items():
        own, other = batch["unlabelled"][name], np.roll(batch["unlabelled"][name], 1, 0)
        np.testing.assert_array_equal(shown[told], np.where(masks, other, own))


def test_how_a_run_is_watched_is_no_part_of_whose_its_folder_is():
    watched = ("picture_every=7", "tensorboard=True", "wandb=depth", "stop_after_skipped=3")
    config = config_of(*(f"--config.{option}" for option in watched))
    assert folders.identity(config) == folders.identity(config_of())
    assert config.teacher.tensorboard and config.teacher.picture_every == 7


def test_a_teachers_picture_has_its_target_and_grey_where_there_is_none():
    ramp = np.tile(np.linspace(0, 1, 42, dtype=np.float32), (1, 28, 1))
    valid = np.ones(ramp.shape, bool)
    valid[:, :, 30:] = False
    image = np.full((*ramp.shape, 3), 7, np.uint8)
    shown = {"image": image, "seen": image / 255, "mask": ~valid & valid, "valid": valid}
    picture = pictures.draw(shown | {"target": ramp, "prediction": 5 * ramp + 3}, "labelled")
    tiles = np.split(picture[24:], 3, axis=1)
    assert (tiles[0] == 7).all() and (tiles[1][:, 30:] == 90).all()
    # The same up to scale and shift is the same picture, up to rounding to 256 colours.
    difference = np.abs(tiles[1][:, :30].astype(int) - tiles[2][:, :30])
    assert difference.max() <= 12 and np.ptp(tiles[2]) > 100
    ramp[:, 5] = np.nan
    nowhere = pictures.draw(shown | {"target": ramp, "prediction": ramp * np.nan}, "labelled")
    assert (np.split(nowhere[24:], 3, axis=1)[2] == 90).all()


@pytest.mark.parametrize("kind", ["labelled", "unlabelled"])
def test_images_without_any_target_end_the_run(kind):
    config = config_of()
    means = {"usable_labelled": 0.5, "usable_unlabelled": 0.1}
    watch.check_targets(4, means, config)
    with pytest.raises(
        DavError, match=f"no {kind} image of the steps up to 4 has a target.*sample/"
    ):
        watch.check_targets(4, means | {f"usable_{kind}": 0.0}, config)


def test_data_without_valid_pixels_ends_the_run(run, tmp_path, monkeypatch):
    whole = figures_of
    monkeypatch.setitem(globals(), "figures_of", lambda *a: whole(*a) | {"usable_labelled": 0.0})
    with pytest.raises(DavError, match="no labelled image of the steps up to 2"):
        run()
    assert len(read_lines(tmp_path / "run" / "metrics.jsonl")) == 1
