"""The part `host` of benchmarks/scaling.py: batches[step] of one process among several.

All simulated processes take turns, step by step, in one real process, so that whatever else the
machine does falls on all alike; their time is CPU time of that process. What a start costs is
measured in fresh ones, one after the other.
"""

import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_records import CROP_PX, SIDE_PX, Shard, make_records, print_table, write_shard
from data_virtual import COUNTS, LABELLED, Virtual

IMAGES = {"labelled": 4, "unlabelled": 8}  # of each process
ROUNDS = 12
STARTS = 5


def measure(photos, counts):
    """Rows by number of processes, and of starts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        write_shard(path, make_records(photos, (518, 777)))
        rows = step_rows(Shard(str(path)), counts)
        starts = [start_row(path, count) for count in (counts[0], counts[-1])]
    print_table("CPU time of batches[step], by simulated processes", rows)
    print_table("CPU time and memory of a fresh process before its first batch", starts)
    return {"images_of_a_process": IMAGES, "crop_px": CROP_PX, "rows": rows, "starts": starts}


class Share:
    """Where the rows of a global batch live, as parallel.batch_sharding says it: this process is
    the `number`-th of `count`, with one device."""

    def __init__(self, number, count):
        self.number, self.count = number, count

    def addressable_devices_indices_map(self, shape):
        own = shape[0] // self.count
        return {"device": (slice(self.number * own, (self.number + 1) * own),)}


def make_batches(contents, number, count):
    """The student's batches at the paper's number of images, of one process of so many."""
    from dav.data import loader, pipeline, sources
    from dav.data.examples import decode_target

    def opened(counts):
        return [
            sources.Decoded(Virtual(contents, name, records), decode_target)
            for name, records in counts.items()
        ]

    whole = {kind: images * count for kind, images in IMAGES.items()}
    return pipeline.make_batches(
        {"labelled": opened(LABELLED), "unlabelled": opened(COUNTS)},
        whole,
        seed=0,
        short_side_px=SIDE_PX,
        crop_px=CROP_PX,
        rows={kind: loader.local_rows(Share(number, count), n) for kind, n in whole.items()},
    )


def step_rows(contents, counts):
    """CPU milliseconds an image for each number of processes, and the median over rounds of the
    ratio to the first. In a round all numbers of processes make as many batches."""
    import cv2

    from dav.data.workers import keep_freed_memory

    cv2.setNumThreads(1)
    keep_freed_memory()  # as the workers that make batches do
    runs = {n: [make_batches(contents, i, n) for i in range(n)] for n in counts}
    spent = {n: [] for n in counts}
    for turn in range(ROUNDS + 1):
        for n in counts:
            spent[n].append(one_round(runs[n], turn, max(counts)))
    rows = []
    for n in counts:
        rounds = [statistics.mean(each) for each in spent[n][1:]]
        first = [statistics.mean(each) for each in spent[counts[0]][1:]]
        own = [
            statistics.median(itertools.chain(*(each[i::n] for each in spent[n][1:])))
            for i in range(n)
        ]
        rows.append(
            {
                "processes": n,
                "global batch": n * sum(IMAGES.values()),
                "CPU ms an image": statistics.median(rounds),
                "slowest process": max(own),
                "ratio to one": statistics.median(
                    a / b for a, b in zip(rounds, first, strict=True)
                ),
            }
        )
    return rows


def one_round(processes, turn, batches):
    """CPU milliseconds an image of so many batches in a row, made by all processes in turns."""
    images, spent = sum(IMAGES.values()), []
    for number in range(batches):
        step, process = divmod(turn * batches + number, len(processes))
        begin = time.process_time()
        processes[process][step]
        spent.append(1e3 * (time.process_time() - begin) / images)
    return spent


def start_row(path, count):
    """Medians over fresh processes, the last one of so many."""
    told = []
    for _ in range(STARTS):
        command = [sys.executable, __file__, str(path), str(count - 1), str(count)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        told.append(json.loads(said))
    return {"processes": count} | {
        name: statistics.median(one[name] for one in told) for name in told[0]
    }


def start(path, number, count):
    """In a fresh process: what it takes to know where every example of every step is."""
    from dav.data import loader, pipeline  # noqa: F401 - libraries are not what is measured

    contents = Shard(path)
    len(contents)
    before = resource.getrusage(resource.RUSAGE_SELF)
    batches = make_batches(contents, int(number), int(count))
    after = resource.getrusage(resource.RUSAGE_SELF)
    for share in batches.shares.values():
        share.order[share.indices(10**6)[-1]]
    found = resource.getrusage(resource.RUSAGE_SELF)

    def milliseconds(one, other):
        return 1e3 * (other.ru_utime + other.ru_stime - one.ru_utime - one.ru_stime)

    return {
        "index CPU ms": milliseconds(before, after),
        "first example CPU ms": milliseconds(after, found),
        "index MiB": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(start(*sys.argv[1:])))
