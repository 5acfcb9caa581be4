"""How much of a run's time went into steps that count, over all its starts."""

import time

from dav.files import read_log, write_lines
from dav.runtime.telemetry import read_metrics


class Goodput:
    """The productive share of the wall time since the run's first start.

    Productive are the seconds of steps that are part of the run as it is now, between two lines of
    figures: not compiling, not starting and restoring, not waiting for data, saving or drawing,
    not the time between a stop and the next start, and not steps that were lost and done again.
    WORKDIR/starts.jsonl has a line for every start: time (seconds since 1970) and step.
    """

    def __init__(self, workdir, *, from_step, tell=print):
        """Records a start at `from_step`; what was productive before is in metrics.jsonl. Of a
        damaged file only what stands before the damage counts; `tell` is told."""
        path = workdir / "starts.jsonl"
        starts = read_log(path, ("time", "step"), tell)
        starts.append({"time": time.time(), "step": from_step})
        write_lines(path, starts)
        self.starts, self._first = len(starts), starts[0]["time"]
        before = [line for line in read_metrics(workdir / "metrics.jsonl", tell) if _counts(line)]
        kept = [line["productive_s"] for line in before if line["step"] <= from_step]
        self.productive_s = kept[-1] if kept else 0.0

    def add(self, seconds):
        """Counts seconds of steps."""
        self.productive_s += seconds

    def share(self):
        """Productive seconds over those since the first start, 0 to 1."""
        return min(self.productive_s / max(time.time() - self._first, 1e-9), 1.0)


def _counts(line):
    return line["kind"] == "train" and "productive_s" in line
