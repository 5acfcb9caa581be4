"""The training job: restore or initialise, then one step after the other.

The loop's order is fixed: save, take the batch of this step, step, log. Nothing about data is
saved, so a run that resumes at step k takes batch k, whatever was read ahead before.
"""

import contextlib
import math
import time

import jax

from dav import folders, recipe, recipe_data
from dav.data import loader, pipeline
from dav.errors import DavError, Stopped
from dav.runtime import checkpoint, interrupts, memory, parallel, workdir
from dav.runtime.telemetry import MetricsLog, Progress, format_duration

# Until the buffers of a step have found their places, each place that one had would be kept.
SETTLING_STEPS = 10
TRIM_EVERY_STEPS = 25


def train(config, paths):
    """Trains the config's recipe in its work folder; returns at once when there is nothing left.

    Raises Stopped after saving when asked to stop, DavError when the loss is no longer finite.
    """
    if folders.steps_done(config, paths) >= config.steps:
        print(f"{config.recipe}: all {config.steps} steps are done, nothing left to do")
        return
    batches, trainer = recipe_data.make_batches(config, paths), recipe.make_trainer(config)
    with (
        workdir.claim(paths.workdir, folders.identity(config)),
        interrupts.stop_request() as stop,
    ):
        with checkpoint.Checkpoints(paths.checkpoints) as checkpoints:
            state, start = first_state(trainer, checkpoints, paths)
            if start:
                print(f"{config.recipe}: resuming at step {start}")
            done = run_steps(config, paths, trainer, checkpoints, batches, state, start, stop)
        if stop:  # only now is the last save on disk
            raise Stopped(f"{config.recipe}: stopped, and saved at step {done} of {config.steps}")


def first_state(trainer, checkpoints, paths):
    """The newest checkpoint, or a fresh state; and the number of steps behind it."""
    step = checkpoint.latest_step(paths.checkpoints)
    if step is None:
        return trainer.init(), 0
    return checkpoints.restore(step, trainer.shapes), step


def run_steps(config, paths, trainer, checkpoints, batches, state, start, stop):
    """Trains from step `start` to the end or until asked to stop; returns the steps then done,
    whose saving has begun."""
    sharding = parallel.batch_sharding(trainer.mesh)
    frozen = trainer.frozen()
    saved = step = start
    workers = recipe_data.worker_processes(config)
    with (
        pipeline.reading(batches, start, config.steps, processes=workers) as ahead,
        Watch(config, paths, start) as watch,
    ):
        while step < config.steps and not stop:
            if step > saved and step % config.checkpoint_every == 0:
                watch.tell(step)
                checkpoints.save(step, state)
                saved = step
            with watch.waiting():
                batch = loader.to_device(next(ahead), sharding)
            state, metrics = trainer.step(state, frozen, batch)
            watch.tell(step)  # of the step before, while the device works on this one
            watch.metrics = metrics
            step += 1
            if step - start <= SETTLING_STEPS or step % TRIM_EVERY_STEPS == 0:
                memory.return_freed_pages()
        watch.tell(step)
        if step > saved:
            checkpoints.save(step, state)
    return step


class Watch:
    """Tells of each step once its metrics are there; a loss that is not finite ends the run."""

    def __init__(self, config, paths, start):
        self.metrics = None  # of the newest step, still on the device
        self._told = 0
        self._config, self._start = config, start
        self._images = sum(config.batch.values())
        self._log = MetricsLog(paths.workdir / "metrics.jsonl", from_step=start)
        self._progress = Progress(config.recipe, config.steps, plain_every=config.log_every)
        self._begin, self._waited_s = time.monotonic(), 0.0

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        self._progress.close()
        self._log.close()
        if kind is None and self._told:
            spent = format_duration(time.monotonic() - self._begin)
            print(f"{self._config.recipe}: {self._told - self._start} steps in {spent}")

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        begin = time.monotonic()
        yield
        self._waited_s += time.monotonic() - begin

    def tell(self, done):
        """Logs and shows the metrics of the last of `done` finished steps, if not yet told."""
        if self.metrics is None:
            return
        figures = {name: float(value) for name, value in jax.device_get(self.metrics).items()}
        self.metrics = None
        if not math.isfinite(figures["loss"] + figures["grad_norm"]):
            raise DavError(
                f"the loss is {figures['loss']} and its gradient's norm {figures['grad_norm']} at "
                f"step {done}: lower the learning rate "
                "(config.optimizer) and train in another --workdir; earlier checkpoints are kept"
            )
        if done % self._config.log_every == 0 or done == self._config.steps:
            elapsed_s = time.monotonic() - self._begin
            rate = self._images * (done - self._start) / elapsed_s
            wait = self._waited_s / elapsed_s
            self._log.write(done, "train", **figures, images_per_s=rate, data_wait=wait)
        self._told = done
        self._progress.update(done, f"loss {figures['loss']:.4f}", per_item=self._images)
