"""62.3 M records that take no space: the part `virtual` of benchmarks/data.py."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data_records import CROP_PX, SIDE_PX, Shard, make_records, print_table, write_shard

# Images of the paper's unlabelled sets (arXiv 2401.10891, table 1).
COUNTS = {
    "bdd100k": 8_200_000,
    "google_landmarks": 4_100_000,
    "imagenet21k": 13_100_000,
    "lsun": 9_800_000,
    "objects365": 1_700_000,
    "open_images": 7_800_000,
    "places365": 6_500_000,
    "sa1b": 11_100_000,
}
LABELLED = {"labelled": 1_599_000}
IMAGES = {"labelled": 64, "unlabelled": 128}  # of a global batch
PROCESSES = 16  # of a pod that shares it


def measure_virtual(photos):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        write_shard(path, make_records(photos, (518, 777)))
        fresh = [fresh_process(path, processes) for processes in (PROCESSES, 1)]
        steps = [step_row(path, processes) for processes in (PROCESSES, 1)]
    print_table("the first batch of a fresh process, decoded, from its start", fresh)
    print_table("a random step, milliseconds", steps)
    checks = once_an_epoch()
    print_table("each record once an epoch", [{"check": k, "result": v} for k, v in checks.items()])
    return {"records": sum(COUNTS.values()), "first": fresh, "steps": steps, "epoch": checks}


@dataclass(frozen=True)
class Virtual:
    """A set of `count` records that share the contents of a few."""

    contents: object
    name: str
    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        record = self.contents[index % len(self.contents)]
        return record | {"id": f"{self.name}/{index}".encode()}


def virtual_batches(contents, processes, decode):
    """The batches of a student at the paper's scale, for the first of so many processes."""
    from dav.data import pipeline, sources

    def opened(counts):
        return [
            sources.Decoded(Virtual(contents, name, count), decode)
            for name, count in counts.items()
        ]

    return pipeline.make_batches(
        {"labelled": opened(LABELLED), "unlabelled": opened(COUNTS)},
        IMAGES,
        seed=0,
        short_side_px=SIDE_PX,
        crop_px=CROP_PX,
        rows={kind: range(images // processes) for kind, images in IMAGES.items()},
    )


def fresh_process(path, processes):
    """Median over five starts of what first_batch says, and the memory of processes that only
    import libraries."""
    script = Path(__file__).with_name("data.py")
    told = []
    for _ in range(5):
        arguments = ["--started", repr(time.time()), str(path), str(processes)]
        told.append(json.loads(output_of(script, *arguments)))
    row = {name: statistics.median(one[name] for one in told) for name in told[0]}
    rss = "; print([line.split()[1] for line in open('/proc/self/status') if 'VmRSS' in line][0])"
    for label, statement in (("bare python", "pass"), ("numpy and grain", "import numpy, grain")):
        row[f"MiB of {label}"] = int(output_of("-c", statement + rss)) / 1024
    return row


def output_of(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def first_batch(started, path, processes):
    """In a fresh process: seconds since it was started, and memory."""
    from dav.data.examples import decode_target

    batches = virtual_batches(Shard(path), int(processes), decode_target)
    opened_s, opened_mib = time.time() - float(started), resident_mib()
    batch = batches[123_456]
    return {
        "images": sum(len(part["image"]) for part in batch.values()),
        "opened s": opened_s,
        "first batch s": time.time() - float(started),
        "opened MiB": opened_mib,
        "with the batch MiB": resident_mib(),
        "the batch MiB": sum(a.nbytes for part in batch.values() for a in part.values()) / 2**20,
    }


def resident_mib():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def step_row(path, processes):
    """What batches[step] does besides decoding, at random steps."""
    looked_up = virtual_batches([{}], processes, dict)
    read = virtual_batches(Shard(str(path)), processes, dict)
    return {
        "images": sum(share.images for share in read.shares.values()),
        "which records": 1e3 * step_seconds(looked_up),
        "and reading them": 1e3 * step_seconds(read),
    }


def step_seconds(batches):
    seconds = []
    for step in np.random.default_rng(0).integers(10**6, size=101):
        begin = time.perf_counter()
        for share in batches.shares.values():
            for index in share.indices(int(step)):
                share.order[index]
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def once_an_epoch(samples=200_000):
    """That each record comes once an epoch: by samples, by arithmetic, in full at 1/100."""
    from dav.data import mixture

    order = mixture.endless(numbered(COUNTS), kind="unlabelled", seed=0)
    total = sum(COUNTS.values())
    places = np.random.default_rng(0).choice(total, samples, replace=False)
    found = [order[int(place)] for place in places]
    seen = Counter(name for name, _ in found)
    expected = {name: samples * count / total for name, count in COUNTS.items()}
    small = {name: count // 100 for name, count in COUNTS.items()}
    little = mixture.endless(numbered(small), kind="unlabelled", seed=0)
    every = {(name, i) for name, count in small.items() for i in range(count)}
    epochs = [
        {little[i] for i in range(epoch * len(every), (epoch + 1) * len(every))} == every
        for epoch in range(2)
    ]
    return {
        f"different records in {samples} random places": len(set(found)),
        "largest deviation of a set's share from the expected, in standard deviations": max(
            abs(seen[name] - mean) / np.sqrt(mean * (1 - mean / samples))
            for name, mean in expected.items()
        ),
        f"indices of {total} that Grain's permutation misses": missed(total),
        f"two epochs of {len(every)} records show each once": all(epochs),
        "and in different order": [little[i] for i in range(100)]
        != [little[len(every) + i] for i in range(100)],
    }


def numbered(counts):
    """Sets whose records are (name, index)."""
    return [Numbered(name, count) for name, count in counts.items()]


@dataclass(frozen=True)
class Numbered:
    name: str
    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.name, index


def missed(total):
    """How many of range(total) are not among its images under the permutation that shuffles."""
    from grain.experimental import index_shuffle

    seen = np.zeros(total, bool)
    for start in range(0, total, 1_000_000):
        stop = min(start + 1_000_000, total)
        shuffled = (
            index_shuffle(i, max_index=total - 1, seed=7, rounds=4) for i in range(start, stop)
        )
        seen[np.fromiter(shuffled, np.int64, stop - start)] = True
    return int(total - seen.sum())
