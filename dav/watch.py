"""What a training run tells while it runs: figures, a line of progress, now and then a picture.

Every process follows every step, so that all of them stop at the same one; process 0 alone writes.
"""

import contextlib
import json
import math
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from dav import pictures, recipe, recipe_update, viz
from dav.errors import DavError
from dav.files import write_whole
from dav.runtime import perf, processes
from dav.runtime.boards import TensorBoard, WeightsAndBiases
from dav.runtime.goodput import Goodput
from dav.runtime.streams import say
from dav.runtime.telemetry import Interval, MetricsLog, Progress, format_duration

PERCENTILES = ("step_s_p50", "step_s_p95")
WAIT_SHOWN = 0.03  # share of the time that waiting for data must take to be told on the line


class Watch:
    """Follows a run step by step. Use as a context manager.

    A step's figures are fetched while the device works on the next one: nothing waits for the step
    just started, and no more than two are ever under way. Of every log_every steps one line is
    written, to WORKDIR/metrics.jsonl and the boards that are asked for:

    loss, loss_…, grad_norm…, tokens_kept and whatever else the step returns: the mean over the
        steps since the last line in which it was finite; null if it was in none.
    skipped, skipped_in_row: updates left out so far, and just before.
    share_…: of each loss_… in the loss.
    lr_…: the learning rate of the last update, by group.
    images_per_s, data_wait, mfu: over the time since the last line, without a run's first step,
        which compiles, and without pictures; absent in a line where nothing is left to time.
        data_wait is the share of the time in which the loop stood still for want of a batch; mfu is
        absent where the device's peak is unknown.
    step_s_p50, step_s_p95: median and 95th percentile of the steps' seconds, of the same steps.
    save_s: seconds in which saving kept steps from starting, where there was any.
    restore_s: seconds that checking and restoring took, in the first line after a resume.
    memory_peak_gib: the most that a device of this process has held since it started; absent where
        the device does not tell.
    productive_s, goodput, starts: goodput.py.
    """

    def __init__(self, config, paths, mesh, start, restored_s=0.0):
        """`start` steps were done before, and restoring them has taken `restored_s`."""
        self._config, self._workdir = config, paths.workdir
        self._start = self._told = start
        self._restored_s = restored_s if start else 0.0
        self._newest = None  # (steps done, metrics on the device), of the step under way
        self._begin, self._since = time.monotonic(), Interval()
        self._images = sum(config.batch.values())
        self._look = pictures.make_look(config, mesh)
        self._profiles, self._writes = False, processes.is_first()
        if not self._writes:
            return
        self._rates, self._weights = learning_rates(config), loss_weights(config)
        self._flops = recipe.step_flops(config)
        self._peak = perf.peak_flops_per_s()
        self._boards = open_boards(config, paths.workdir, start)
        self._progress = Progress(
            config.recipe, config.steps, done=start, plain_every=config.log_every
        )
        tell = self._progress.note
        self._log = MetricsLog(paths.workdir / "metrics.jsonl", from_step=start, tell=tell)
        self._goodput = Goodput(paths.workdir, from_step=start, tell=tell)
        if self._peak is None:
            kind = jax.devices()[0].device_kind
            tell(f"the peak rate of {kind} is not known to dav: no MFU is told")

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        if not self._writes:
            return
        if self._profiles:
            self._profile(starts=False)
        self._progress.close()
        self._log.close()
        for board in self._boards:
            board.close(failed=kind is not None)
        if kind is None and self._told > self._start:
            spent = format_duration(time.monotonic() - self._begin)
            steps = self._told - self._start
            say(f"{self._config.recipe}: {steps} steps in {spent}\n", sys.stdout)

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        begin = time.monotonic()
        yield
        self._since.wait(time.monotonic() - begin)

    @contextlib.contextmanager
    def saving(self):
        """Counts the time inside as saving; to be called when no step is under way."""
        self.catch_up()
        begin = time.monotonic()
        yield
        self._since.save(time.monotonic() - begin)

    def follow(self, done, metrics):
        """Takes the metrics of the step just started, the `done`-th, and tells of the one before.

        Raises DavError when config.stop_after_skipped updates in a row were left out, or when no
        image since the last line had a target.
        """
        for value in metrics.values():
            value.copy_to_host_async()
        self.catch_up()
        self._newest = done, metrics
        if done in self._config.profile and self._writes:
            self.catch_up()
            self._profile(starts=done == self._config.profile[0])

    def catch_up(self):
        """Waits for the step under way, if there is one, and tells of it; raises as `follow`."""
        if self._newest is None:
            return
        (done, metrics), self._newest = self._newest, None
        figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._since.add(figures)
        self._told = done
        if figures["skipped_in_row"] >= max(self._config.stop_after_skipped, 1):
            raise DavError(too_many_skipped(done, figures))
        if self._writes:
            self._show(done, figures)
        if done % self._config.log_every == 0 or done == self._config.steps:
            if self._writes:
                self._write(done, figures)
            check_targets(done, self._since.means(), self._config)
            self._since = self._since.following()

    def picture(self, done, params, batch):
        """Every picture_every steps: WORKDIR/pictures/STEP.jpg, of the step just started, the
        `done`-th, and its batch, as the network with its new parameters answers."""
        every = self._config.picture_every
        if not every or done % every:
            return
        self.catch_up()
        begin = time.monotonic()
        shown = jax.device_get(self._look(params, batch, np.int32(done - 1)))
        if self._writes:
            image = pictures.draw(shown, pictures.kind_of(batch))
            write_whole(self._workdir / "pictures" / f"{done}.jpg", viz.encode_jpeg(image))
            for board in self._boards:
                board.picture(done, image)
            self._progress.leave_out(time.monotonic() - begin)
        self._since.leave_out(time.monotonic() - begin)

    def _show(self, done, figures):
        if figures["skipped_in_row"]:
            self._progress.note(
                f"{self._config.recipe}: update {done} was left out, since {not_finite(figures)} "
                f"was not finite; {figures['skipped']:.0f} so far"
            )
        loss, wait = self._since.means()["loss"], self._since.data_wait() or 0.0
        parts = ["loss not finite" if loss is None else f"loss {loss:.4f}"]
        if wait > WAIT_SHOWN:
            parts.append(f"{wait:.0%} waiting for data")
        self._progress.update(done, "  ".join(parts), per_item=self._images)

    def _write(self, done, newest):
        counts = {name: newest[name] for name in ("skipped", "skipped_in_row")}
        figures = self._since.means() | counts
        figures |= loss_shares(figures, self._weights)
        update = max(done - 1 - int(newest["skipped"]), 0)
        figures |= {f"lr_{group}": float(rates[update]) for group, rates in self._rates.items()}
        figures |= self._speed()
        for log in (self._log, *self._boards):
            log.write(done, "train", **figures)

    def _profile(self, *, starts):
        """Begins or ends XLA's profile of some steps, in WORKDIR/profile."""
        if starts:
            jax.profiler.start_trace(self._workdir / "profile")
        elif self._profiles:
            jax.profiler.stop_trace()
            self._progress.note(f"profile written to {self._workdir / 'profile'}, for xprof")
        self._profiles = starts

    def _speed(self):
        """What is known of the time since the last line, and of memory."""
        since, figures = self._since, {}
        self._goodput.add(since.productive_s())
        if (step_s := since.step_seconds()) is not None:
            figures |= {"images_per_s": self._images / step_s, "data_wait": since.data_wait()}
            figures |= dict(zip(PERCENTILES, since.step_percentiles(), strict=True))
            if self._peak:
                figures["mfu"] = self._flops / step_s / self._peak
        if since.saved_s():
            figures["save_s"] = since.saved_s()
        if self._restored_s:
            figures["restore_s"], self._restored_s = self._restored_s, 0.0
        if peak := perf.memory_peak_bytes():
            figures["memory_peak_gib"] = peak / 2**30
        kept = self._goodput
        counts = {"productive_s": kept.productive_s, "starts": kept.starts}
        return figures | counts | {"goodput": kept.share()}


def open_boards(config, workdir, start):
    """Those of TensorBoard and Weights & Biases that the config asks for."""
    boards = []
    if config.tensorboard:
        boards.append(TensorBoard(workdir, from_step=start))
    if config.wandb:
        name, settings = (
            f"{config.recipe}-{config.preset}",
            json.loads(config.to_json_best_effort()),
        )
        boards.append(WeightsAndBiases(workdir, config.wandb, name=name, settings=settings))
    return boards


def learning_rates(config):
    """The rates of all updates by group, float32 [steps]: on the host, since asking the device in
    the middle of a step would wait for that step."""
    updates = jnp.arange(config.steps)
    return {
        group: np.asarray(jax.vmap(recipe_update.schedule(peak, config))(updates))
        for group, peak in recipe_update.peak_rates(config).items()
    }


def loss_weights(config):
    """The weight of a term beside the others, for those in which it is not one."""
    return {"loss_gradients": config.objective.gradient_weight}


def loss_shares(figures, weights):
    """{share_labelled: its part of the loss, …} from the means of a line; None where the loss is
    zero or not known. Unlike the losses, the shares of any step add up to one."""
    parts = {
        name: value if value is None else value * weights.get(name, 1.0)
        for name, value in figures.items()
        if name.startswith("loss_")
    }
    known = None not in parts.values() and sum(parts.values()) > 0
    total = sum(parts.values()) if known else None
    return {
        "share_" + name.removeprefix("loss_"): part / total if known else None
        for name, part in parts.items()
    }


def check_targets(done, means, config):
    """Raises DavError for images that teach nothing: all of a kind without a target."""
    for kind in config.batch:
        if means.get(f"usable_{kind}") == 0:
            names = ", ".join(config.data[kind])
            raise DavError(
                f"no {kind} image of the steps up to {done} has a target: their maps are constant "
                f"or without valid pixels. Look at {names} with python -m dav.data.inspect"
                + (", and at the teacher" if kind == "unlabelled" else "")
            )


def not_finite(figures):
    """The names of the figures that were not finite, the terms of the loss if there are any."""
    names = [name for name, value in figures.items() if not math.isfinite(value)]
    terms = [name for name in names if name.startswith("loss_")]
    return " and ".join(terms or names)


def too_many_skipped(done, figures):
    """Why the run ends, and what to look at."""
    in_row = int(figures["skipped_in_row"])
    return (
        f"{in_row} updates in a row were left out, up to step {done}, since the loss or its "
        f"gradient was not finite, in the last one {not_finite(figures)}: lower the learning rate "
        "(config.optimizer) and train in another --workdir, or look for damaged examples in "
        f"batches[{done - in_row}] to batches[{done - 1}]; earlier checkpoints are kept"
    )
