"""What a running job tells: metrics.jsonl always, and one live line or plain lines."""

import json
import math
import shutil
import sys
import time

from dav.files import read_log, write_lines
from dav.runtime.streams import say

POINTS = 20  # that the rate is taken over
COMPILATION = "/jax/core/compile/backend_compile_duration"  # jax's event for time spent compiling


def read_metrics(path, tell=print):
    """The lines of a metrics.jsonl, up to the first that is damaged, of which `tell` is told."""
    return read_log(path, ("step", "kind"), tell)


class MetricsLog:
    """metrics.jsonl: one JSON object a line with `step`, `kind` and figures."""

    def __init__(self, path, *, from_step=0, tell=print):
        """Opens the log; a resumed run's lines after `from_step`, a torn one, and all from a
        damaged one on, are dropped. `tell` is told of damage."""
        write_lines(path, (line for line in read_metrics(path, tell) if line["step"] <= from_step))
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - closed by close()

    def write(self, step, kind, **figures):
        """Adds one line. A figure is a finite number, or None (null) where it has no value; JSON
        knows no NaN, and a reader in another language would stop there."""
        line = json.dumps({"step": step, "kind": kind, **figures}, allow_nan=False)
        self._file.write(line + "\n")

    def close(self):
        self._file.close()


class Interval:
    """What happened since the last line of figures: means, speed, waiting, saving.

    Its clock starts with the first step of a run done, so that compiling is in no rate; the
    figures of that step count.
    """

    def __init__(self, begin=None):
        """`begin` is the time at which the interval before ended; None: the run has just begun."""
        self._begin, self._end = begin, begin
        self._waited_s = self._saved_s = self._left_out_s = 0.0
        self._left_out_before_s = 0.0  # up to the newest step
        self._steps_s, self._values = [], {}

    def add(self, figures):
        """Takes the figures of one more step, done now; those that are not finite do not count."""
        before, self._end = self._end, time.monotonic()
        if self._begin is None:
            self._begin, self._waited_s, self._saved_s, self._left_out_s = self._end, 0.0, 0.0, 0.0
        else:
            left_out_s = self._left_out_s - self._left_out_before_s
            self._steps_s.append(max(self._end - before - left_out_s, 0.0))
        self._left_out_before_s = self._left_out_s
        for name, value in figures.items():
            self._values.setdefault(name, []).extend([value] if math.isfinite(value) else [])

    def wait(self, seconds):
        """Counts time as waiting for data."""
        self._waited_s += seconds

    def save(self, seconds):
        """Counts time as saving, in which no step could start; it is in no rate."""
        self._saved_s += seconds
        self._left_out_s += seconds

    def leave_out(self, seconds):
        """Keeps time that was no training, as drawing a picture, out of the rates."""
        self._left_out_s += seconds

    def following(self):
        """The interval that begins where this one ends."""
        return Interval(self._end)

    def means(self):
        """The mean of every figure over the steps in which it was finite; None if in none."""
        return {
            name: sum(values) / len(values) if values else None
            for name, values in self._values.items()
        }

    def step_seconds(self):
        """Seconds a step, or None before a step could be timed."""
        return sum(self._steps_s) / len(self._steps_s) if sum(self._steps_s) > 0 else None

    def step_percentiles(self):
        """(median, 95th percentile) of the seconds of its steps, or None before one was timed. The
        end of a step is seen when the next one has been started."""
        ordered = sorted(self._steps_s)
        if not ordered:
            return None
        return tuple(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))

    def data_wait(self):
        """The share of the time in which the loop stood still for want of a batch, or None."""
        spent_s = sum(self._steps_s)
        return min(self._waited_s / spent_s, 1.0) if spent_s > 0 else None

    def productive_s(self):
        """Seconds of steps, without compiling, waiting for data, saving and drawing."""
        return max(sum(self._steps_s) - self._waited_s, 0.0)

    def saved_s(self):
        """Seconds in which saving kept steps from starting."""
        return self._saved_s


class Progress:
    """One live line on a terminal, refreshed in place; elsewhere a plain line now and then.

    What is finished within `batch_s` seconds counts as finished together, in the rate. A resumed
    job has `done` already.
    """

    def __init__(self, label, total, *, done=0, plain_every=1, batch_s=0.0, stream=None):
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._label, self.total, self.plain_every = label, total, plain_every
        self._batch_s, self._shown = batch_s, done
        self._is_drawn = False  # whether the live line stands on the screen
        self._recent = []  # (time, done) of the last points, for the rate

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def update(self, done, text="", *, per_item=1, unit="images"):
        """Shows that `done` of the total are finished; `per_item` units were worked each."""
        now = time.monotonic()
        if self._recent and now - self._recent[-1][0] < self._batch_s:
            self._recent[-1] = (self._recent[-1][0], done)
        else:
            self._recent = [*self._recent[-POINTS:], (now, done)]
        (start, first), rate = self._recent[0], 0.0
        if len(self._recent) > 1 and now > start:
            rate = (done - first) / (now - start)
        parts = [f"{self._label} {done}/{self.total}", text]
        if rate > 0:
            left = format_duration((self.total - done) / rate)
            parts += [f"{rate * per_item:.1f} {unit}/s", f"{left} left"]
        self._show("  ".join(part for part in parts if part), done)

    def leave_out(self, seconds):
        """Keeps time that was no work, as compilation, out of the rate and the time left."""
        self._recent = [(at + seconds, done) for at, done in self._recent]

    def note(self, text):
        """Prints a line of its own to stderr; on a terminal the live line makes room for it."""
        if self._is_drawn:
            say("\r\x1b[K", self._stream)
            self._is_drawn = False
        say(f"{text}\n", sys.stderr)

    def close(self):
        """Ends the live line."""
        if self._is_drawn:
            say("\n", self._stream)
            self._is_drawn = False

    def _show(self, line, done):
        if self._live:
            width = shutil.get_terminal_size().columns
            say(f"\r\x1b[K{line[: width - 1]}", self._stream)
            self._is_drawn = True
        elif done == self.total or done // self.plain_every > self._shown // self.plain_every:
            self._shown = done
            say(f"{line}\n", self._stream)


def format_duration(seconds):
    """12 → '12 s', 200 → '3 min 20 s', 9000 → '2 h 30 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
