"""What labelling tells of its work: a line for each shard, progress, what the whole set costs."""

import statistics
import sys
import threading
import time

import jax

from dav.errors import DavError
from dav.runtime.telemetry import COMPILATION, Progress

EVERY_S = 30.0  # without a terminal, between two lines
# Of each shard, these are kept for the page: kind, from what figure, how many.
OUTLIERS = (("constant", 2), ("most zeros", 1), ("roughest", 1), ("most extreme", 1))

JUDGED_FROM = 10  # images of a shard, for the teacher to be judged by it; the sample's have 13


def describe_shard(shard, teacher, origin):
    """The manifest line of a labelled shard, but for its file. Raises DavError if most of its maps
    are not finite, unless they are few: such labels must not be kept."""
    failed = sorted(shard.failed, key=lambda failure: failure["index"])
    if len(shard.records) >= JUDGED_FROM and shard.not_finite > len(shard.records) / 2:
        raise DavError(
            f"the teacher's maps for {shard.not_finite} of the {len(shard.records)} images of "
            f"{shard.path} are not finite; its training has failed"
        )
    return {
        "shard": shard.path.name,
        "records": len(shard.records),
        "teacher": origin,
        "failed": failed,
        "statistics": summarise(list(shard.figures.values())),
        "outliers": find_outliers(shard.figures, shard.ids),
        "measured": {
            "seconds": round(shard.seconds, 3),
            "devices": teacher.devices,
            "kind": teacher.kind,
        },
    }


def summarise(figures):
    """Of the maps of a shard: the lowest and highest value, the median of their medians, the mean
    share of zeros, the number of constant maps; None where there is no map."""
    if not figures:
        return {"low": None, "median": None, "high": None, "zeros": None, "constant": 0}
    return {
        "low": min(f["low"] for f in figures),
        "median": statistics.median(f["median"] for f in figures),
        "high": max(f["high"] for f in figures),
        "zeros": statistics.fmean(f["zeros"] for f in figures),
        "constant": sum(f["low"] == f["high"] for f in figures),
    }


def find_outliers(figures, ids):
    """The maps of a shard most worth a look: [{index, id, kind, value}]."""
    measures = {
        "constant": lambda f: float(f["low"] == f["high"]),
        "most zeros": lambda f: f["zeros"] * (f["low"] < f["high"]),
        "roughest": lambda f: f["roughness"],
        "most extreme": lambda f: (f["high"] - f["median"]) / max(f["median"] - f["low"], 1e-6),
    }
    found = []
    for kind, count in OUTLIERS:
        ranked = sorted(figures, key=lambda index: (-measures[kind](figures[index]), index))
        for index in ranked[:count]:
            if value := measures[kind](figures[index]):
                found.append({"index": index, "id": ids[index], "kind": kind, "value": value})
    return found


class Teller:
    """The progress of all processes together, and what the whole set costs at this one's speed."""

    def __init__(self, missing, whole, *, devices, cost_per_hour):
        """`missing` images are to be labelled, of `whole`."""
        self._progress = Progress("labels", missing)
        self._whole, self._devices, self._cost_per_hour = whole, devices, cost_per_hour
        self._begin, self._own, self._told, self._done = None, 0, -EVERY_S, None
        self._is_live = sys.stdout.isatty()
        self._lock = threading.Lock()

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._leave_out)
        self._begin = time.monotonic()
        return self

    def __exit__(self, *error):
        jax.monitoring.unregister_event_duration_listener(self._leave_out)
        self._progress.close()

    def note(self, sentence):
        """A line of its own."""
        with self._lock:
            self._progress.note(sentence)

    def update(self, left, own, *, last=False):
        """`left` images are still missing; this process has labelled `own` more."""
        self._own += own
        now, done = time.monotonic(), self._progress.total - left
        is_early = not (last or self._is_live) and now - self._told < EVERY_S
        if done == self._done or is_early:
            return
        self._told, self._done = now, done
        with self._lock:
            self._progress.update(done, self.projection())

    def projection(self):
        """What all images cost at the speed of this process so far."""
        seconds = time.monotonic() - self._begin
        if not self._own or seconds <= 0:
            return ""
        hours = self._whole / self._own * seconds * self._devices / 3600
        told = f"all {self._whole:,} images: {_rounded(hours)} device-hours"
        if self._cost_per_hour:
            told += f", cost {_rounded(hours * self._cost_per_hour)}"
        return f"({told})"

    def _leave_out(self, event, seconds, **_):
        if event == COMPILATION:
            self._begin += seconds
            self._progress.leave_out(seconds)


def _rounded(value):
    """Three digits at least, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
