"""How fast the input pipeline is, against its own limit and against PyTorch's DataLoader.

    python benchmarks/data.py [--only=decoding,limit,peer,virtual] [--photos=FOLDER] [--turns=9]

decoding  JPEG decoders and methods of resizing: time, and PSNR to decoding in full and averaging
          over areas. simplejpeg and imagecodecs take part where they are installed.
limit     images/s a core from ArrayRecord to finished crops of 518×518, by one worker process a
          core, as a share of the bare limit: the same records in memory, decoded, resized and
          cropped by the same code in a plain loop, one such process a core.
peer      the same against torch.utils.data.DataLoader with as many workers, on the same JPEG and
          PNG files, with the transforms of the authors' released training code (OpenCV, cubic,
          floats); needs PyTorch.
virtual   62.3 M records that take no space, in the paper's eight sets: time to the first batch of
          a fresh process, memory, time of a random step, each record once an epoch.

Images come from the photographs in FOLDER (default: those of dav's sample), four by four in one
collage, so that a photograph of 1500×2250 is as sharp as one of a camera; JPEG at quality 92.
What is compared runs in turns; figures are medians. Prints tables, writes
benchmarks/results/data_*.json.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import data_decoding
import data_virtual
import numpy as np
from data_records import (
    CROP_PX,
    ROOT,
    SIDE_PX,
    SIZES_PX,
    UNIT_M,
    Shard,
    make_records,
    print_table,
    write_shard,
)

BATCH = 16


def main():
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="decoding,limit,peer,virtual")
    parser.add_argument("--photos", default=str(ROOT / "dav" / "sample" / "photos"))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--started", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.started:
        return print(json.dumps(data_virtual.first_batch(*arguments.started)))
    parts = {
        "decoding": lambda: data_decoding.measure_decoding(arguments.photos),
        "limit": lambda: measure_limit(arguments.photos, arguments.turns),
        "peer": lambda: measure_peer(arguments.photos, arguments.turns),
        "virtual": lambda: data_virtual.measure_virtual(arguments.photos),
    }
    for name in arguments.only.split(","):
        result = machine() | parts[name]()
        text = json.dumps(result, indent=1)
        (ROOT / "benchmarks" / "results" / f"data_{name}.json").write_text(text + "\n")


def machine():
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def measure_limit(photos, turns):
    with contestants(photos, "pre-shrunk", ("dav", "bare")) as runs:
        figures = in_turns(runs, turns)
    rows = summary(figures, {"images": "pre-shrunk"})
    share = share_of(figures["dav"], figures["bare"])
    print_table("from ArrayRecord to crops, one process a core", rows)
    print_table("share of the bare limit", [share])
    return {"batch": BATCH, "rows": rows, "share_of_limit": share}


def measure_peer(photos, turns):
    peers = ("float64, as released", "float32", "uint8")
    rows = []
    for name in SIZES_PX:
        with contestants(photos, name, ("dav", *peers)) as runs:
            figures = in_turns(runs, turns)
        rows += [
            row | {"dav faster by": share_of(figures["dav"], figures[row["reader"]])["by time"]}
            for row in summary(figures, {"images": name})
        ]
    print_table("against torch.utils.data.DataLoader, as many workers", rows)
    import torch

    return {"batch": BATCH, "torch": torch.__version__, "rows": rows}


@contextlib.contextmanager
def contestants(photos, name, readers):
    """Functions by reader: (images) → seconds and CPU seconds for at least so many images."""
    records = make_records(photos, SIZES_PX[name])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        runs = {}
        for reader in readers:
            if reader not in ("bare", "dav"):
                files = write_files(Path(folder), records)
                runs[reader] = stack.enter_context(peer_reader(files, reader))
        if "bare" in readers:
            runs["bare"] = stack.enter_context(bare_reader(records))
        write_shard(Path(folder) / "shard", records)
        runs["dav"] = stack.enter_context(dav_reader(Shard(str(Path(folder) / "shard"))))
        yield {reader: runs[reader] for reader in readers}


def in_turns(runs, turns):
    """{reader: [(seconds an image, CPU seconds an image), …]}."""
    figures = {reader: [] for reader in runs}
    for turn in range(turns + 1):
        for reader, run in runs.items():
            time.sleep(1)  # readers fill their buffers after their turn
            figure = run()
            if turn:
                figures[reader].append(figure)
    return figures


def summary(figures, head):
    cores = usable_cores()
    return [
        head
        | {
            "reader": reader,
            "images/s": 1 / statistics.median(seconds),
            "a core": 1 / statistics.median(seconds) / cores,
            "CPU ms an image": 1e3 * statistics.median(cpu),
        }
        for reader, (seconds, cpu) in (
            (reader, zip(*each, strict=True)) for reader, each in figures.items()
        )
    ]


def share_of(ours, theirs):
    """Median over turns of how much faster ours was; by CPU time, a busy machine matters less."""
    names = ("by time", "by CPU time")
    return {
        name: statistics.median(b[i] / a[i] for a, b in zip(ours, theirs, strict=True))
        for i, name in enumerate(names)
    }


def usable_cores():
    from dav.data.workers import usable_cores

    return usable_cores()


@contextlib.contextmanager
def dav_reader(shard):
    """dav's own reading of batches, with one worker process a core."""
    from dav.data import pipeline, sources
    from dav.data.examples import decode_target

    batches = pipeline.make_batches(
        {"labelled": [sources.Decoded(shard, decode_target)]},
        {"labelled": BATCH},
        seed=0,
        short_side_px=SIDE_PX,
        crop_px=CROP_PX,
    )
    with pipeline.reading(batches, 0, 10**9, processes=usable_cores()) as ahead:
        yield functools.partial(timed_batches, ahead)


def timed_batches(ahead, batches=12):
    """(seconds, CPU seconds) an image, once what lay in buffers is used up."""
    buffered = 3 * usable_cores()
    for _ in range(buffered):
        next(ahead)
    begin, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(batches):
        next(ahead)
    images = BATCH * batches
    return (time.perf_counter() - begin) / images, (cpu_seconds() - cpu) / images


def cpu_seconds():
    """Of this process and all below it."""
    import psutil

    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


@contextlib.contextmanager
def bare_reader(records):
    """The plain loop, in one process a core."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for seed in range(usable_cores()):
        mine, theirs = context.Pipe()
        context.Process(target=bare_loop, args=(records, theirs, seed), daemon=True).start()
        pipes.append(mine)

    def run():
        for pipe in pipes:
            pipe.send("go")
        figures = [pipe.recv() for pipe in pipes]
        return (
            1 / sum(1 / seconds for seconds, _ in figures),
            statistics.mean(cpu for _, cpu in figures),
        )

    yield run
    for pipe in pipes:
        pipe.send("end")


def bare_loop(records, pipe, seed):
    """Decodes, resizes and crops records in memory, as often as it is told to."""
    from dav.data import workers
    from dav.data.examples import decode_target
    from dav.data.transforms import random_view

    cv2.setNumThreads(1)
    workers.keep_freed_memory()
    rng = np.random.default_rng(seed)
    passes = 4
    while pipe.recv() == "go":
        begin, cpu = time.perf_counter(), time.process_time()
        for record in records * passes:
            random_view(decode_target(record), rng, short_side_px=SIDE_PX, crop_px=CROP_PX)
        images = passes * len(records)
        pipe.send(((time.perf_counter() - begin) / images, (time.process_time() - cpu) / images))


def write_files(folder, records):
    """The records' images and maps as files; their paths."""
    paths = []
    for record in records:
        name = record["id"].decode()
        paths.append((str(folder / f"{name}.jpg"), str(folder / f"{name}.png")))
        Path(paths[-1][0]).write_bytes(record["image"])
        Path(paths[-1][1]).write_bytes(record["target"])
    return paths


@contextlib.contextmanager
def peer_reader(files, variant):
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    examples = Files(files, variant)
    loader = DataLoader(
        examples,
        batch_size=BATCH,
        sampler=RandomSampler(examples, replacement=True, num_samples=10**7),
        num_workers=usable_cores(),
        worker_init_fn=one_thread,
        multiprocessing_context="spawn",
        drop_last=True,
    )
    torch.set_num_threads(1)
    ahead = (batch for batch in loader)
    with contextlib.closing(ahead):
        yield functools.partial(timed_batches, ahead)


def one_thread(worker):
    cv2.setNumThreads(1)


@dataclass(frozen=True)
class Files:
    """Image and depth as the authors' training on metric depth reads and transforms them
    (github.com/DepthAnything/Depth-Anything-V2, metric_depth/dataset): resized whole, OpenCV,
    cubic, multiples of 14; normalised; then cropped. Flipping is left to the device there."""

    files: list
    variant: str

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        import torch

        image_path, depth_path = self.files[index]
        image = cv2.cvtColor(cv2.imread(image_path), cv2.COLOR_BGR2RGB)
        if self.variant == "float32":
            image = image.astype(np.float32) / np.float32(255)
        elif self.variant != "uint8":
            image = image / 255.0
        depth = cv2.imread(depth_path, cv2.IMREAD_UNCHANGED).astype(np.float32) * UNIT_M
        height, width = (
            max(round(side * SIDE_PX / min(image.shape[:2]) / 14) * 14, SIDE_PX)
            for side in image.shape[:2]
        )
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
        image = self.normalised(image)
        top = np.random.randint(height - SIDE_PX + 1)
        left = np.random.randint(width - SIDE_PX + 1)
        rows, columns = slice(top, top + SIDE_PX), slice(left, left + SIDE_PX)
        depth = torch.from_numpy(depth[rows, columns])
        image = torch.from_numpy(image[:, rows, columns])
        return {"image": image, "depth": depth, "valid": depth > 0}

    def normalised(self, image):
        """[H, W, 3] → [3, H, W], with the encoder's mean and deviation, float32; or as it is."""
        if self.variant == "uint8":
            return np.ascontiguousarray(image.transpose(2, 0, 1))
        mean = np.array((0.485, 0.456, 0.406), image.dtype)
        deviation = np.array((0.229, 0.224, 0.225), image.dtype)
        image = (image - mean) / deviation
        return np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)


if __name__ == "__main__":
    main()
