"""The training job: restore or initialise, then one step after the other.

The loop's order is fixed: save, take the batch of this step, step, log. Nothing about data is
saved, so a run that resumes at step k takes batch k, whatever was read ahead before, and however
many processes share the work then.
"""

import sys

from dav import folders, recipe, recipe_data
from dav.data import loader, pipeline
from dav.errors import Stopped
from dav.runtime import checkpoint, interrupts, memory, parallel, processes, workdir
from dav.runtime.gathering import AnyProcess, all_or_none, from_first
from dav.runtime.streams import say
from dav.watch import Watch

# Until the buffers of a step have found their places, each place that one had would be kept.
SETTLING_STEPS = 10
TRIM_EVERY_STEPS = 25


def train(config, paths):
    """Trains the config's recipe in its work folder, with all processes of the run; returns at once
    when there is nothing left.

    Raises Stopped after saving when any of the processes was asked to stop, DavError when too many
    updates in a row were left out, since loss or gradient were not finite.
    """
    if from_first(lambda: folders.steps_done(config, paths)) >= config.steps:
        tell(f"{config.recipe}: all {config.steps} steps are done, nothing left to do")
        return
    trainer = recipe.make_trainer(config)
    sharding = parallel.batch_sharding(trainer.mesh)
    batches = all_or_none(lambda: recipe_data.make_batches(config, paths, sharding))
    anyone = AnyProcess(trainer.mesh)
    with (
        workdir.claim(paths.workdir, folders.identity(config)),
        interrupts.stop_request() as stop,
    ):
        with open_checkpoints(config, paths) as checkpoints:
            state, start = first_state(trainer, checkpoints)
            if start:
                tell(f"{config.recipe}: resuming at step {start}")
            done = run_steps(
                *(config, paths, trainer, checkpoints, batches, state, start),
                asked=lambda: anyone.says(stop),
            )
        if anyone.says_now(stop):  # only now is the last save on disk
            raise Stopped(f"{config.recipe}: stopped, and saved at step {done} of {config.steps}")


def open_checkpoints(config, paths):
    """The run's checkpoints, damaged ones set aside."""
    return checkpoint.Checkpoints(
        paths.checkpoints, keep=config.keep_checkpoints, keep_every=config.keep_every
    )


def first_state(trainer, checkpoints):
    """The newest checkpoint, or a fresh state; and the number of steps behind it."""
    step = checkpoints.latest
    if step is None:
        return all_or_none(trainer.init), 0
    return checkpoints.restore(step, trainer.shapes), step


def run_steps(config, paths, trainer, checkpoints, batches, state, start, asked):
    """Trains from step `start` to the end or until asked() to stop; returns the steps then done,
    whose saving has begun."""
    sharding = parallel.batch_sharding(trainer.mesh)
    frozen = all_or_none(trainer.frozen)
    saved = step = start
    workers = recipe_data.worker_processes(config)
    with (
        pipeline.reading(batches, start, config.steps, processes=workers) as ahead,
        Watch(config, paths, trainer.mesh, start, checkpoints.restored_s) as watch,
    ):
        while step < config.steps and not asked():
            if step > saved and step % config.checkpoint_every == 0:
                with watch.saving():
                    checkpoints.save(step, state)
                saved = step
            with watch.waiting():
                batch = loader.to_device(next(ahead), sharding)
            state, metrics = trainer.step(state, frozen, batch)
            step += 1
            watch.follow(step, metrics)  # tells of the step before, while the device works
            watch.picture(step, state.params, batch)
            if step - start <= SETTLING_STEPS or step % TRIM_EVERY_STEPS == 0:
                memory.return_freed_pages()
        watch.catch_up()
        if step > saved:
            checkpoints.save(step, state)
    return step


def tell(text):
    """Prints a line, once for all processes."""
    if processes.is_first():
        say(f"{text}\n", sys.stdout)
