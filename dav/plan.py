"""What a command will do: the stages of a recipe, what is there, what will run, what it costs."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.tree_util
import numpy as np

from dav import (
    evaluation_job,
    folders,
    label,
    label_page,
    plan_costs,
    plan_topology,
    prepare,
    recipe,
    recipe_network,
    train,
)
from dav.models.depth_anything import SIZES
from dav.runtime import parallel, perf
from dav.runtime import topology as topologies
from dav.runtime.telemetry import format_duration

COMPILE_S = 25  # of one training step, on a small machine


@dataclass(frozen=True)
class Stage:
    """One part of a recipe and its state. `run` takes nothing and does what is missing."""

    name: str
    done: bool
    state: str
    cost: str
    flops: float  # that are missing
    other_s: float  # that the rest takes
    run: Any


def plan(config, paths, *, topology="", mfu=None):
    """Prints the plan and what the recipe's own training costs, on the devices that there are or
    on a TPU pod, for which the training step is then compiled too.

    topology: the pod's name. mfu: share of the devices' peak rate to reckon with. Raises
    ConfigError for a pod that there is not, or whose devices the batch does not split over.
    """
    pod = topologies.pod(topology) if topology else None
    devices = pod.devices if pod else jax.devices()
    trainer = recipe.make_trainer(config, devices=devices)
    if folders.trains_teacher(config):
        recipe_network.check_starts(config.teacher, "config.teacher")
    mfu = mfu or perf.expected_share(devices)
    show(config, paths, devices=devices, mfu=mfu)
    for line in plan_costs.lines(config, paths, trainer, peak=perf.peak_of(devices), mfu=mfu):
        print(line)
    if pod:
        print(f"compiling the training step for {pod.name}: some minutes", flush=True)
        for line in plan_topology.lines(plan_topology.compile_step(config, trainer, pod)):
            print(line)


def make_stages(config, paths):
    """The stages of a recipe in order: data, teacher, pseudo-labels, student, evaluation."""
    stages = [prepare_stage(config, paths)]
    if folders.trains_teacher(config):
        teacher = folders.teacher_config(config, paths)
        teacher_paths = folders.make_paths(teacher, paths.teacher)
        stages.append(train_stage(teacher, teacher_paths))
    if folders.uses_labels(config):
        stages.append(label_stage(config, paths))
    stages.append(train_stage(config, paths))
    return [*stages, evaluate_stage(config, paths)] if config.evaluation.sets else stages


def show(config, paths, *, devices=None, mfu=None):
    """Prints the plan of the whole recipe, on all devices or on those given; returns its stages.

    mfu: share of their peak rate to reckon with; None: what is usual there. Raises ConfigError for
    data sets, or a split, that there cannot be.
    """
    prepare.check_sets(config, paths)
    stages = make_stages(config, paths)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp, devices=devices)
    devices = list(mesh.devices.flat)
    lines = [*recipe_lines(config, paths, mesh), *schedule_lines(config, paths)]
    for line in [*lines, *prepare.sky_lines(config, paths)]:
        print(line)
    peak = perf.peak_of(devices) or perf.matmul_flops_per_s()
    rate = peak * (mfu or perf.expected_share(devices))
    left_s = 0.0
    for stage in stages:
        mark, cost = "done" if stage.done else "to do", ""
        if not stage.done:
            seconds = stage.flops / rate + stage.other_s
            cost = f"; {stage.cost}, about {format_minutes(seconds)}"
            left_s += seconds
        print(f"{stage.name:<10} {mark:<5}  {stage.state}{cost}")
    where = f"on {mesh.size} {devices[0].device_kind} device(s)"
    print(f"expected   {format_minutes(left_s)} {where}" if left_s else "nothing left to do")
    return stages


def recipe_lines(config, paths, mesh):
    """Which recipe it is, of what network, on which mesh."""
    size = SIZES[config.model.size]
    return [
        f"recipe     {config.recipe}:{config.preset}, seed {config.seed}, in {paths.workdir}",
        f"model      {config.model.size}: {count_parameters(config) / 1e6:.1f} M parameters, width "
        f"{size.width}, {size.blocks} blocks, crops of {config.crop_px[1]}×{config.crop_px[0]} px",
        f"mesh       data {mesh.shape['data']} × fsdp {mesh.shape['fsdp']} on {mesh.size} "
        f"{mesh.devices.flat[0].device_kind} device(s)",
    ]


def schedule_lines(config, paths):
    """What follows from what: how often the images of each kind are seen in all the steps."""
    lines = []
    for kind, size in config.batch.items():
        draws, (images, origin) = config.steps * size, plan_costs.count_images(config, paths, kind)
        seen = f" = {draws / images:.2f} × {images:,} images ({origin})" if images else ""
        lines.append(f"{kind:<10} {config.steps:,} steps × {size} a batch = {draws:,} images{seen}")
    passes = {"epochs": "labelled", "passes": "unlabelled"}
    for name, kind in passes.items():
        if name in config:
            whole = config[name] * config.images[kind]
            if whole // config.batch[kind] == config.steps:
                lines.append(
                    f"steps      from {name} {config[name]} × {config.images[kind]:,} {kind} "
                    f"images / {config.batch[kind]} a batch; --config.steps=N overrides"
                )
    return lines


def prepare_stage(config, paths):
    """The data sets of recipe and teacher."""
    names = recipe.data_set_names(config)
    missing = prepare.missing_sets(config, paths)
    state = f"{len(names) - len(missing)} of {len(names)} data sets in {paths.data}"
    cost = f"builds {', '.join(missing)}"
    return Stage("data", not missing, state, cost, 0, 2.0, lambda: prepare.prepare(config, paths))


def train_stage(config, paths):
    """The training of one recipe."""
    done = min(folders.steps_done(config, paths), config.steps)
    left, images = config.steps - done, sum(config.batch.values())
    mix = " + ".join(f"{size} {kind}" for kind, size in config.batch.items())
    return Stage(
        name=config.recipe,
        done=left == 0,
        state=f"{done} of {config.steps} steps",
        cost=f"{left} steps of {mix} images, {left * images:,} images in all",
        flops=left * recipe.step_flops(config),
        other_s=COMPILE_S,
        run=lambda: train.train(config, paths),
    )


def label_stage(config, paths):
    """The teacher's pass over the unlabelled images."""
    waits = set(config.data.unlabelled) & set(prepare.missing_sets(config, paths))
    shards = {} if waits else label.missing_shards(config, paths)
    missing = [path for paths_of_set in shards.values() for path in paths_of_set]
    counts = {} if waits else plan_costs.shard_counts(config, paths, "unlabelled")
    images = sum(counts[path] for path in missing)
    if waits:
        images, _ = plan_costs.count_images(config, paths, "unlabelled")
    looks = 2 if config.label_flip else 1
    cost = ("two looks" if looks == 2 else "one look") + (
        f" at {images:,} images" if images else " at every image"
    )
    state = f"{len(missing)} shards without labels" if missing else f"labelled in {paths.labels}"
    state = "no images yet" if waits else state
    teacher = folders.teacher_config(config, paths) if folders.trains_teacher(config) else config
    return Stage(
        name="labels",
        done=not (missing or waits) and label_page.is_written(config, paths),
        state=state,
        cost=cost if missing or waits else "their page is still to be written",
        flops=looks * images * forward_flops(teacher),
        other_s=5.0,
        run=lambda: label.label(config, paths),
    )


def evaluate_stage(config, paths):
    """Figures and report."""
    done = evaluation_job.is_done(config, paths)
    sets = ", ".join(config.evaluation.sets)
    return Stage(
        name="evaluation",
        done=done,
        state=f"report in {paths.workdir / 'report'}" if done else "no report yet",
        cost=f"{sets} ({config.evaluation.split})",
        flops=0,
        other_s=10.0,
        run=lambda: evaluation_job.evaluate(config, paths),
    )


def forward_flops(config):
    """Operations of one look at one image."""
    grid, size = recipe_network.crop_grid(config), SIZES[config.model.size]
    return perf.encoder_flops(size, grid) + perf.decoder_flops(size, grid)


def count_parameters(config):
    """Parameters of the whole network, from shapes alone."""
    model = recipe_network.make_model(config)
    image = jax.ShapeDtypeStruct((1, *config.crop_px, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def format_minutes(seconds):
    """90 s or more in whole minutes, two hours or more in hours: a forecast has no more digits."""
    if seconds < 90:
        return format_duration(seconds)
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"
