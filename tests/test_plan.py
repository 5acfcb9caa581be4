"""What a training costs, before it is begun."""

import dataclasses
import math
import shutil
import sys

import jax
import numpy as np
import pytest

from dav import folders, plan, plan_costs, plan_topology, recipe
from dav.errors import ConfigError, DavError
from dav.main import parse
from dav.models import remat
from dav.models.depth_anything import SIZES, Architecture
from dav.runtime import perf, topology, traffic

TINY = Architecture(16, 4, 1, (0, 1, 2, 3), 8, (4, 8, 12, 16), position_grid=3)


def config_of(name, *options):
    return parse(["dav", f"--config=configs/{name}", *options])[0]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(SIZES, "mini", TINY)
    return config_of("student.py", "--config.crop_px=(28, 42)", "--config.optimizer.ema_decay=0.9")


def cost_lines(config, tmp_path, **how):
    trainer = recipe.make_trainer(config)
    how = {"peak": 1e15, "mfu": 0.5} | how
    return plan_costs.lines(config, folders.make_paths(config, tmp_path), trainer, **how)


def test_state_is_counted_as_it_is_held(tiny):
    trainer = recipe.make_trainer(tiny)
    state = plan_costs.state_bytes(trainer.shapes)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainer.shapes))
    parameters = plan.count_parameters(tiny)
    assert state == held
    # Parameters, their average, and the two moments of Adam; then some counters.
    assert 16 * parameters <= state < 16 * parameters + 100


def test_activations_grow_as_the_crop_and_shrink_with_recomputation():
    def bytes_of(*options):
        return plan_costs.activation_bytes(config_of("student.py:vitl", *options))

    whole = bytes_of()
    assert 1.3 < bytes_of("--config.crop_px=(518, 714)") / whole < 1.45
    kept = [bytes_of(f"--config.model.remat={policy}") for policy in remat.POLICIES]
    assert kept[0] == whole and kept[1] < 0.8 * whole and kept[2] < 0.6 * whole
    assert kept == sorted(kept, reverse=True)
    assert bytes_of("--config.model.dtype=float32") > 1.6 * whole


def test_a_tpu_pads_narrow_maps():
    """ViT-S has 64 and 32 channels where a TPU has 128 lanes; a ViT-G's 384 need no padding but for
    the last layers."""

    def padding(preset):
        config = config_of(f"student.py:{preset}" if preset != "v2" else "teacher.py:v2")
        return plan_costs.activation_bytes(config, plan_costs.LANES) / plan_costs.activation_bytes(
            config
        )

    assert padding("vits") > 1.8 and 1 < padding("v2") < 1.2


def test_hours_follow_from_operations_and_rate(tmp_path):
    config = config_of("teacher.py:vitl", "--config.steps=1000")
    said = "\n".join(cost_lines(config, tmp_path))
    seconds = 1000 * recipe.step_flops(config) / 0.5e15
    assert f"{seconds / 3600:,.0f} device-hours on 1 devices" in said and "at 50% MFU" in said
    rate = 192 / (recipe.step_flops(config) / 0.5e15)
    assert f"{rate:,.0f} images/s in all" in said
    assert "labelled: 1,599,000 images, as the paper counts them, about 1.0 TB stored" in said


def test_labels_have_a_volume(tmp_path):
    said = "\n".join(cost_lines(config_of("student.py:vits"), tmp_path))
    assert "labels     62,300,000 of about 4:3 at 518 px, about 1.9 TB" in said
    assert "about 6.7 TB stored" in said


def test_data_that_is_there_is_counted(sample_root, tmp_path):
    config = config_of("student.py", f"--config.data.root={sample_root}")
    paths = folders.make_paths(config, tmp_path)
    images, origin = plan_costs.count_images(config, paths, "unlabelled")
    assert origin == plan_costs.COUNTED and images > 0
    stored = sum(
        path.stat().st_size for path in plan_costs.shard_counts(config, paths, "unlabelled")
    )
    said = "\n".join(plan_costs.volume_lines(config, paths))
    assert f"unlabelled: {images:,} images, {plan_costs.giga(stored)}, counted" in said


def test_a_missing_shard_of_images_says_how_it_comes_back(sample_root, tmp_path):
    shutil.copytree(sample_root, tmp_path / "data")
    gone = tmp_path / "data/sample/photos/1.0.0/sample_photos-train.array_record-00001-of-00004"
    gone.unlink()
    config = config_of("student.py", f"--config.data.root={tmp_path / 'data'}")
    with pytest.raises(DavError, match=f"{gone} is missing; .* --job=prepare"):
        plan_costs.volume_lines(config, folders.make_paths(config, tmp_path))


def test_an_unknown_device_has_no_hours(tmp_path):
    said = "\n".join(cost_lines(config_of("teacher.py"), tmp_path, peak=None))
    assert "the peak rate of cpu is not known" in said and "device-hours" not in said


def test_the_plan_prints_stages_and_costs(capsys, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(perf, "matmul_flops_per_s", lambda: 1e12)
    plan.plan(tiny, folders.make_paths(tiny, tmp_path / "run"), mfu=0.25)
    said = capsys.readouterr().out
    for word in ("student", "to do", "FLOPs", "a device", "at 25% MFU", "cores of decoding"):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[tpu\]'"):
        topology.pod("v5e:2x2")


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
         "required for HLO temporaries (512.00G) exceeds available HBM (15.75G).", 512 * 2**30),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 26.30G of 15.75G hbm.",
         26.3 * 2**30),
        ("INTERNAL: something else", None),
    ],
)  # fmt: skip
def test_what_a_program_would_have_needed_is_read(message, needed):
    assert topology.needed_bytes(RuntimeError(message)) == needed


POD = topology.Pod("v5e:2x2", (0,) * 4, 1, 16 * 2**30)


def test_a_verdict_says_whether_it_fits():
    sent = (traffic.Collective("all-reduce", 10**8, 4),)
    fits = plan_topology.Verdict(POD, True, 3 * 2**30, 2**30, 2**31, 0, sent, 100.0)
    said = "\n".join(plan_topology.lines(fits))
    assert "4 chips on 1 hosts" in said and "fits: 3.00 GiB of 16.00 GiB" in said
    assert "all-reduce ×1 150.0 MB" in said
    too_large = dataclasses.replace(fits, fits=False, needed_bytes=20 * 2**30)
    said = "\n".join(plan_topology.lines(too_large))
    assert "does not fit: a chip would need 20.00 GiB of 16.00 GiB" in said


def test_a_step_is_compiled_for_the_devices_of_its_trainer(monkeypatch):
    """Those of this machine, in a pod's place."""
    monkeypatch.setitem(SIZES, "mini", TINY)
    config = config_of("teacher.py", "--config.crop_px=(28, 42)", "--config.batch.labelled=2")
    trainer = recipe.make_trainer(config)
    pod = dataclasses.replace(POD, devices=tuple(jax.devices()))
    found = plan_topology.compile_step(config, trainer, pod)
    state = plan_costs.state_bytes(trainer.shapes)
    assert found.fits and state < found.argument_bytes < state + 2 * 28 * 42 * (3 + 4 + 1) + 1000
    assert found.temporary_bytes > 0 and found.collectives == () and found.seconds > 0


def test_the_steps_arguments_are_those_of_a_batch(tiny):
    trainer = recipe.make_trainer(tiny)
    state, frozen, batch = plan_topology.arguments(tiny, trainer)
    assert state is trainer.shapes and frozen == trainer.shapes.params["encoder"]
    assert batch["unlabelled"]["image"].shape == (8, 28, 42, 3)
    assert batch["labelled"]["valid"].dtype == np.bool_
    out = jax.eval_shape(trainer.step, state, frozen, batch)[1]
    assert "loss" in out and math.prod(out["loss"].shape) == 1
