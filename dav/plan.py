"""What a command will do: the stages of a recipe, what is there, what will run, what it costs."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.tree_util
import numpy as np

from dav import evaluate, folders, label, prepare, recipe, recipe_network, train
from dav.data import sources
from dav.models.depth_anything import SIZES
from dav.runtime import parallel, perf
from dav.runtime.telemetry import format_duration

COMPILE_S = 25  # of one training step, on a small machine


@dataclass(frozen=True)
class Stage:
    """One part of a recipe and its state. `run` takes nothing and does what is missing."""

    name: str
    done: bool
    state: str
    cost: str
    seconds: float
    run: Any


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


def show(config, paths):
    """Prints the plan of the whole recipe."""
    stages = make_stages(config, paths)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.fsdp)
    size = SIZES[config.model.size]
    parameters = count_parameters(config)
    print(f"recipe     {config.recipe}:{config.preset}, seed {config.seed}, in {paths.workdir}")
    print(
        f"model      {config.model.size}: {parameters / 1e6:.1f} M parameters, width {size.width}, "
        f"{size.blocks} blocks, crops of {config.crop_px[1]}×{config.crop_px[0]} px"
    )
    print(
        f"mesh       data {mesh.shape['data']} × fsdp {mesh.shape['fsdp']} on "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    )
    for line in schedule_lines(config, paths):
        print(line)
    for stage in stages:
        mark = "done" if stage.done else "to do"
        cost = "" if stage.done else f"; {stage.cost}, about {format_minutes(stage.seconds)}"
        print(f"{stage.name:<10} {mark:<5}  {stage.state}{cost}")
    left = sum(stage.seconds for stage in stages if not stage.done)
    print(f"expected   {format_minutes(left)} on this machine" if left else "nothing left to do")
    return stages


def schedule_lines(config, paths):
    """What follows from what: how often the images of each kind are seen in all the steps."""
    lines = []
    for kind, size in config.batch.items():
        draws, (images, origin) = config.steps * size, count_images(config, paths, kind)
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


def count_images(config, paths, kind):
    """(number, where it is from) of a kind's training images: counted, else the config's."""
    names = config.data[kind]
    if not set(names) & set(prepare.missing_sets(config, paths)):
        return sum(map(sources.record_count, shards_of(paths, names))), "counted in the data"
    if "images" in config and kind in config.images:
        return config.images[kind], "as the paper counts them"
    return 0, ""


def shards_of(paths, names):
    """The training shards of some data sets."""
    return [path for name in names for path in sources.split_shards(paths.data, name, "train")]


def prepare_stage(config, paths):
    """The data sets of recipe and teacher."""
    names = recipe.data_set_names(config)
    missing = prepare.missing_sets(config, paths)
    state = f"{len(names) - len(missing)} of {len(names)} data sets in {paths.data}"
    cost = f"builds {', '.join(missing)}"
    return Stage("data", not missing, state, cost, 2.0, lambda: prepare.prepare(config, paths))


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
        seconds=perf.expected_seconds(left * recipe.step_flops(config)) + COMPILE_S if left else 0,
        run=lambda: train.train(config, paths),
    )


def label_stage(config, paths):
    """The teacher's pass over the unlabelled images."""
    waits = set(config.data.unlabelled) & set(prepare.missing_sets(config, paths))
    shards = {} if waits else label.missing_shards(config, paths)
    missing = [path for paths_of_set in shards.values() for path in paths_of_set]
    images = sum(sources.record_count(path) for path in missing)
    state = f"{len(missing)} shards without labels" if missing else f"labelled in {paths.labels}"
    state = "no images yet" if waits else state
    teacher = folders.teacher_config(config, paths) if folders.trains_teacher(config) else config
    seconds = forward_seconds(teacher, images) + 5 if missing or waits else 0
    return Stage(
        name="labels",
        done=not (missing or waits),
        state=state,
        cost=f"one look at {images:,} images" if images else "one look at every image",
        seconds=seconds,
        run=lambda: label.label(config, paths),
    )


def evaluate_stage(config, paths):
    """Figures and report."""
    done = evaluate.is_done(config, paths)
    sets = ", ".join(config.evaluation.sets)
    return Stage(
        name="evaluation",
        done=done,
        state=f"report in {paths.workdir / 'report'}" if done else "no report yet",
        cost=f"{sets} ({config.evaluation.split})",
        seconds=10.0,
        run=lambda: evaluate.evaluate(config, paths),
    )


def forward_seconds(config, images):
    """A forecast for so many forward passes."""
    grid, size = recipe_network.crop_grid(config), SIZES[config.model.size]
    forward = perf.encoder_flops(size, grid) + perf.decoder_flops(size, grid)
    return perf.expected_seconds(images * forward)


def count_parameters(config):
    """Parameters of the whole network, from shapes alone."""
    model = recipe_network.make_model(config)
    image = jax.ShapeDtypeStruct((1, *config.crop_px, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def format_minutes(seconds):
    """90 s or more in whole minutes: a forecast has no more digits."""
    return format_duration(seconds) if seconds < 90 else f"{round(seconds / 60)} min"
