import dataclasses
import os

import jax
import numpy as np
import pytest
from random_weights import TINY, random_weights

from dav import folders, recipe, recipe_data, recipe_network, recipe_update
from dav.errors import ConfigError
from dav.label_teacher import make_teacher
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
        ("labelled_weights=(1, 0)", r"data.labelled_weights=\(1, 0\) must be above zero"),
        ("unlabelled_weights=('a',)", r"data.unlabelled_weights=\('a',\) must be numbers"),
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


def test_paths_understand_the_home_folder():
    paths = folders.make_paths(config_of("--config.data.root=~/data"), "~/run")
    assert "~" not in f"{paths.data}{paths.workdir}" and paths.workdir.is_absolute()


@pytest.fixture
def quick_programs():
    """Programs are compiled quickly, not well."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_training_starts_from_the_encoder_that_is_named(tmp_path, monkeypatch, quick_programs):
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


def test_an_encoder_of_another_size_is_refused(tmp_path, monkeypatch, quick_programs):
    monkeypatch.setitem(SIZES, "mini", dataclasses.replace(TINY, position_grid=5))
    save_official(tmp_path / "tiny.safetensors", random_weights(TINY, 0))
    config = config_of(f"--config.model.encoder_init={tmp_path / 'tiny.safetensors'}")
    with pytest.raises(ConfigError, match="is not an encoder of size mini"):
        recipe.make_trainer(config).init()


STUDENTS = ("mini", "vits", "vitb", "vitl", "v2-vits", "v2-vitb", "v2-vitl")
ARMS = ("-labelled", "-pseudo", "-strong", "")


def preset(name, *options, recipe="student"):
    return parse(["dav", f"--config=configs/{recipe}.py:{name}", *options])[0]


@pytest.mark.parametrize("size", STUDENTS)
def test_every_preset_of_the_student_can_be_used(size):
    for arm in ARMS if not size.startswith("v2") else ARMS[1:]:
        config = preset(size + arm)
        recipe.check(config)
        assert recipe.make_objective(config) and folders.identity(config)
        assert config.steps > 0 and config.preset == size + arm


@pytest.mark.parametrize("name", ["mini", "vits", "vitb", "vitl", "v2"])
def test_every_preset_of_the_teacher_can_be_used(name):
    recipe.check(preset(name, recipe="teacher"))


def test_unknown_presets_are_refused_with_the_known_ones():
    for name in ("vitx", "vits-weak", "v3-vits"):
        with pytest.raises(ConfigError, match="unknown preset.*vits"):
            preset(name)


@pytest.mark.parametrize("size", [size for size in STUDENTS if size.startswith("v2")])
def test_the_second_versions_students_have_no_labelled_arm(size):
    with pytest.raises(ConfigError, match=f"{size}-labelled.*no labelled images.*without v2-"):
        preset(f"{size}-labelled")


@pytest.mark.parametrize("size", ["mini", "vits"])
def test_the_arms_of_the_ablation_differ_in_one_ingredient_at_equal_steps_and_images(size):
    arms = [preset(size + arm) for arm in ARMS]
    assert len({config.steps for config in arms}) == 1
    assert len({sum(config.batch.values()) for config in arms}) == 1
    assert [folders.uses_labels(config) for config in arms] == [False, True, True, True]
    assert [c.objective.perturb for c in arms] == [False, False, True, True]
    assert [c.objective.align_features for c in arms] == [False, False, False, True]
    assert [folders.trains_teacher(config) for config in arms] == [False, True, True, True]


def test_the_labelled_arm_says_nothing_of_unlabelled_images():
    config = preset("vits-labelled")
    assert dict(config.images) == {"labelled": 1_599_000}
    assert "unlabelled" not in str(folders.identity(config))


def test_steps_follow_from_passes_images_and_batch_until_they_are_set():
    assert preset("vitl").steps == 62_300_000 // 128
    assert preset("vitl", "--config.batch.unlabelled=256").steps == 62_300_000 // 256
    assert preset("vitl", "--config.passes=2").steps == 2 * 62_300_000 // 128
    assert preset("vitl", "--config.steps=7", "--config.batch.unlabelled=256").steps == 7
    assert preset("vitl", recipe="teacher").steps == 20 * 1_599_000 // 192


def test_the_second_version_is_as_its_paper_says():
    teacher, student = preset("v2", recipe="teacher"), preset("v2-vits")
    assert (teacher.model.size, teacher.steps, teacher.batch.labelled) == ("vitg", 160_000, 64)
    assert teacher.objective.gradient_weight == 2
    assert dict(student.batch) == {"unlabelled": 192} and student.steps == 480_000
    assert student.objective.trim == 0.1 and student.objective.align_features
    assert student.teacher.preset == "v2"
    assert recipe_network.architecture(student).taps == (2, 5, 8, 11)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.version=3", "model.version=3 is not known; known: 1, 2"),
        ("model.dtype=float16", "model.dtype='float16' is not known"),
        ("objective.trim=1.0", "objective.trim=1.0 must be from 0 to below 1"),
        ("optimizer.ema_decay=1.0", "optimizer.ema_decay=1.0"),
        ("accumulate=0", "accumulate=0 must be above zero"),
        ("keep_checkpoints=1", "keep_checkpoints=1 must be at least 2"),
        ("evaluation.max_depth_m=-1.0", "must not be negative"),
        ("optimizer.encoder_lr=nan", "optimizer.encoder_lr=nan must be finite, and must not be"),
        ("optimizer.encoder_lr=-1", "optimizer.encoder_lr=-1.0 must be finite, and must not"),
        ("optimizer.decoder_lr=inf", "optimizer.decoder_lr=inf must be above zero, and finite"),
        ("optimizer.warmup_steps=-1", "optimizer.warmup_steps=-1 must be finite"),
        ("optimizer.weight_decay=-3", "optimizer.weight_decay=-3.0 must be finite"),
        ("optimizer.clip_norm=nan", "optimizer.clip_norm=nan must be finite, and must not be"),
        ("optimizer.ema_decay=nan", "optimizer.ema_decay=nan must be from 0 to below 1"),
        ("objective.margin=-7", "objective.margin=-7.0 must be a cosine, from -1 to 1"),
        ("objective.gradient_weight=nan", "objective.gradient_weight=nan must be finite"),
        ("short_side_px=13", "config.short_side_px=13 must be at least 14, a patch"),
        ("train_short_side_px=0", "train_short_side_px=0 must be at least 14, a patch"),
        ("data.labelled=()", "data.labelled is empty; name data sets"),
        (
            "crop_px=('a','b')",
            r"crop_px=\('a', 'b'\) must be \(height, width\), both multiples of 14",
        ),
        ("crop_px=(28.0, 28.0)", "crop_px"),
        ("profile=('a','b')", r"profile=\('a', 'b'\) must be two steps"),
        ("profile=(1.5, 3)", "must be two steps"),
        ("data.labelled=('sample/icl',3)", r"data.labelled=\('sample/icl', 3\) must be names"),
        ("data.unlabelled=('',)", "data.unlabelled=.* must be names of data sets"),
        ("evaluation.sets=(3,)", r"config.evaluation.sets=\(3,\) must be names of data sets"),
    ],
)
def test_settings_that_cannot_be_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        recipe.check(config_of(f"--config.{option}"))


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("label_short_side_px=505", "504 or 518"),
        ("short_side_px=520", "518 or 532"),  # which labelling follows
    ],
)
def test_new_labels_are_of_whole_patches_and_old_ones_stay_usable(option, nearest):
    config = config_of(f"--config.{option}")
    with pytest.raises(ConfigError, match=rf"label_short_side_px=\d+ .* multiple of 14.*{nearest}"):
        recipe.check(config)
    recipe.check(config, makes_labels=False)
    recipe.check(preset("mini-labelled", "--config.short_side_px=520"))


def test_a_batch_must_split_into_its_parts():
    with pytest.raises(ConfigError, match="labelled=4 does not split over 1 devices in 3 parts"):
        recipe.check_trainable(config_of("--config.accumulate=3"))


def test_given_weights_take_the_place_of_a_teacher(tmp_path):
    """Labels belong to the network, in whatever file it stands."""
    origins = []
    for name, seed in (("a.safetensors", 3), ("b.pth", 3), ("c.safetensors", 4)):
        save_official(tmp_path / name, random_weights(TINY, seed))
        config = config_of(f"--config.teacher_weights={tmp_path / name}")
        assert not folders.trains_teacher(config)
        origins.append(folders.label_origin(config, folders.make_paths(config, tmp_path)))
    assert origins[0] == origins[1] != origins[2]
    assert origins[0].endswith("at 168 px in few shapes, in float32")
    config.label_flip, config.label_buckets = True, False
    config.model.dtype = "bfloat16"  # as at the paper's scale
    changed = folders.label_origin(config, folders.make_paths(config, tmp_path))
    assert changed.endswith("at 168 px and mirrored")


def test_metric_weights_label_nothing(tmp_path):
    metric = dataclasses.replace(TINY, max_depth_m=20.0)
    save_official(tmp_path / "metric.safetensors", random_weights(metric, 0))
    config = config_of(f"--config.teacher_weights={tmp_path / 'metric.safetensors'}")
    with pytest.raises(ConfigError, match="gives depth in metres"):
        make_teacher(config, folders.make_paths(config, tmp_path))


def finetuning(tmp_path, architecture, *options):
    save_official(tmp_path / "whole.safetensors", random_weights(architecture, 3))
    return preset(
        "mini",
        f"--config.model.weights={tmp_path / 'whole.safetensors'}",
        "--config.data.labelled=('sample/icl',)",
        *options,
        recipe="finetune",
    )


def test_finetuning_starts_from_the_whole_network(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", TINY)
    config = finetuning(tmp_path, TINY, "--config.optimizer.ema_decay=0.9")
    recipe.check(config)
    state = recipe.make_trainer(config).init()
    expected = random_weights(TINY, 3).params
    for params in (state.params, state.ema):
        jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_finetuning_refuses_weights_of_another_network(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", TINY)
    other = dataclasses.replace(TINY, taps=(1, 2, 4, 5), features=24)
    with pytest.raises(ConfigError, match="not of size mini, version 1.*taps.*features 24, not 16"):
        recipe.make_trainer(finetuning(tmp_path, other)).init()
    with pytest.raises(ConfigError, match="model.weights is empty"):
        recipe.check_trainable(preset("mini", recipe="finetune"))
    with pytest.raises(ConfigError, match="no such file"):
        recipe.check_trainable(preset("mini", "--config.model.weights=~/none", recipe="finetune"))
