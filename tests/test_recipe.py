import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import TINY, random_weights

from dav import folders, recipe, recipe_data, recipe_update, train
from dav.errors import ConfigError, DavError
from dav.main import parse
from dav.models.depth_anything import SIZES
from dav.step import key_for
from dav.weights.save import save_official


def config_of(*options, recipe="student"):
    return parse(["dav", f"--config=configs/{recipe}.py", *options])[0]


def test_the_rate_rises_and_falls_linearly_and_the_decoder_has_its_own():
    config = config_of("--config.steps=100", "--config.optimizer.warmup_steps=10")
    rates = np.array([recipe_update.schedule(2.0, config)(step) for step in range(100)])
    assert rates.argmax() == 10 and rates[10] == pytest.approx(2.0)
    assert (np.diff(rates[:11]) > 0).all() and np.ptp(np.diff(rates[10:])) < 1e-6
    assert rates[0] > 0 and 0 < rates[-1] < 0.05


def test_every_parameter_is_in_exactly_one_group():
    groups = recipe_update.group_parameters({"encoder": {"a": 1}, "decoder": {"b": {"c": 1}}})
    assert groups == {"encoder": {"a": "encoder"}, "decoder": {"b": {"c": "decoder"}}}
    with pytest.raises(ValueError, match="'neck/a' is in no group"):
        recipe_update.group_parameters({"neck": {"a": 1}})


def test_a_teachers_own_data_sets_are_prepared_too():
    options = ("--config.data.labelled=('sample/icl',)", "--config.evaluation.sets=('sample/lab',)")
    assert "sample/tum" in recipe.data_set_names(config_of(*options))


def test_where_files_are_and_how_many_devices_share_the_work_is_no_part_of_a_config():
    same = config_of("--config.data.root=/else", "--config.mesh.fsdp=4", "--config.log_every=3")
    assert folders.identity(same) == folders.identity(config_of())
    assert folders.identity(config_of("--config.data.workers=3")) == folders.identity(config_of())
    weights = "--config.data.labelled_weights=(1, 2)"
    for change in (
        weights,
        "--config.seed=1",
        "--config.teacher.steps=3",
        "--config.crop_px=(14, 14)",
    ):
        assert folders.identity(config_of(change)) != folders.identity(config_of())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("labelled_weights=(1,)", "one number for each of the 2 labelled sets"),
        ("labelled_weights=(1, 0)", "above zero"),
        ("unlabelled_weights=('a',)", "must be numbers"),
        ("workers=-2", "workers=-2"),
    ],
)
def test_weights_and_workers_that_cannot_be_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        recipe.check(config_of(f"--config.data.{option}"))


def test_workers_are_counted_by_core_and_the_teacher_has_as_many():
    config = config_of("--config.data.workers=-1")
    assert recipe_data.worker_processes(config) == len(os.sched_getaffinity(0))
    teacher = folders.teacher_config(config, folders.make_paths(config, "run"))
    assert teacher.data.workers == -1
    assert recipe_data.worker_processes(config_of("--config.data.workers=3")) == 3


def test_the_seed_of_the_student_is_its_teachers():
    assert config_of("--config.seed=5").teacher.seed == 5


def test_student_and_teacher_begin_with_different_parameters():
    keys = [jax.random.key_data(key_for(0, f"init {name}")) for name in ("student", "teacher")]
    assert (keys[0] != keys[1]).any()


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_figures_that_are_not_finite_end_the_run(tmp_path, name):
    config = config_of()
    with (
        pytest.raises(DavError, match="at step 10.*learning rate"),
        train.Watch(config, folders.make_paths(config, tmp_path), 0) as watch,
    ):
        watch.metrics = {"loss": jnp.ones(()), "grad_norm": jnp.ones(())} | {name: jnp.nan}
        watch.tell(10)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_paths_understand_the_home_folder():
    paths = folders.make_paths(config_of("--config.data.root=~/data"), "~/run")
    assert "~" not in f"{paths.data}{paths.workdir}" and paths.workdir.is_absolute()


def test_training_starts_from_the_encoder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", TINY)
    other = random_weights(TINY, 3)
    save_official(tmp_path / "other.safetensors", other)
    config = config_of(f"--config.model.encoder_init={tmp_path / 'other.safetensors'}")
    trainer = recipe.make_trainer(config)
    state, frozen = trainer.init(), trainer.frozen()
    for params in (state.params["encoder"], frozen):
        jax.tree.map(np.testing.assert_array_equal, params, other.params["encoder"])
    output = state.params["decoder"]["output_2"]["kernel"]
    assert np.abs(output - other.params["decoder"]["output_2"]["kernel"]).min() > 0
    owners = jax.tree.map(lambda a, b: a is b, state.params["encoder"], frozen)
    assert not any(jax.tree.leaves(owners))  # a step may give away the student's


def test_an_encoder_of_another_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", dataclasses.replace(TINY, position_grid=5))
    save_official(tmp_path / "tiny.safetensors", random_weights(TINY, 0))
    config = config_of(f"--config.model.encoder_init={tmp_path / 'tiny.safetensors'}")
    with pytest.raises(ConfigError, match="is not an encoder of size mini"):
        recipe.make_trainer(config).init()
