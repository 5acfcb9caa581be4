"""Labelling photographs in few network shapes, against each in its own.

    python benchmarks/label.py --images FOLDER... [--weights=SPEC] [--size=mini]
                               [--short_side_px=280] [--count=96] [--batch=16] [--workers=0]
                               [--out=FILE]

Labels the same photographs, spread evenly over the folders, twice in one run, through the whole
pipeline of --job=label but for the disk: decoding, resizing, the network, encoding (by threads, or
by so many workers). Once with the nine shapes that labelling takes, once with every image's own
aspect ratio. Tells the programs that were compiled, images/s with and without compiling, the ratio
of the first, and how far labels differ: of the images that nine shapes change at all, the mean
absolute difference after a fit of scale and shift as a share of the label's range, in the median
and at the 95th percentile (of interest with real weights only; without --weights they are random).
On a GPU the defaults are vitl, 518 px and bfloat16. Prints a table, writes JSON. It counts the
programs at 518 px of every image in the folders too.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from dav import label, label_run, label_teacher, recipe_network
from dav.data import labels
from dav.files import IMAGE_SUFFIXES
from dav.images import read_image
from dav.models.depth_anything import DepthAnything, architecture_of
from dav.runtime.telemetry import COMPILATION
from dav.weights import load

ROOT = Path(__file__).parent.parent
FULL_PX = 518


def main():
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", required=True, type=Path)
    parser.add_argument("--weights", default="")
    parser.add_argument("--size", default="mini" if on_cpu else "vitl")
    parser.add_argument("--short_side_px", type=int, default=280 if on_cpu else FULL_PX)
    parser.add_argument("--count", type=int, default=96 if on_cpu else 2048)
    parser.add_argument("--batch", type=int, default=1 if on_cpu else 16)
    parser.add_argument("--workers", type=int, default=0 if on_cpu else os.cpu_count())
    parser.add_argument("--out")
    arguments = parser.parse_args()
    dtype = "float32" if on_cpu else "bfloat16"
    files = find_files(arguments.images)
    photographs = Photographs(spread(files, arguments.count))
    model, params = make_network(arguments.weights, arguments.size, dtype)
    jax.config.update("jax_enable_compilation_cache", False)  # what is compiled must be counted
    ways = {
        name: measure(model, params, photographs, arguments, buckets=buckets)
        for name, buckets in (("nine shapes", True), ("own shapes", False))
    }
    found = {name: figures.pop("labels") for name, figures in ways.items()}
    result = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "weights": Path(arguments.weights).name or "random",
        "size": arguments.size if not arguments.weights else "as the weights",
        "short_side_px": arguments.short_side_px,
        "batch_per_device": arguments.batch,
        "workers": arguments.workers,
        "dtype": dtype,
        "photographs": len(photographs),
        "ways": ways,
        "faster_by": ways["nine shapes"]["images_per_s"] / ways["own shapes"]["images_per_s"],
        "labels_differ_by": difference(*found.values()),
        f"programs_at_{FULL_PX}_px": count_programs(files),
    }
    print_table(result)
    kind = "cpu" if on_cpu else "gpu"
    out = arguments.out or ROOT / "benchmarks" / "results" / f"label_{kind}.json"
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


def find_files(folders):
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    )


def spread(files, count):
    return [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)]


class Photographs:
    """Files as the records of one shard."""

    def __init__(self, files):
        self._contents = [path.read_bytes() for path in files]

    def __len__(self):
        return len(self._contents)

    def __getitem__(self, index):
        name = str(index).encode()
        return {"id": name, "image": self._contents[index], "target": b"", "quantity": b""}


def make_network(weights, size, dtype):
    """The network of some weights, or of random ones; and its parameters."""
    if weights:
        found = load.load_weights(weights)
        return DepthAnything(found.architecture, dtype=recipe_network.DTYPES[dtype]), found.params
    model = DepthAnything(architecture_of(size, 1), dtype=recipe_network.DTYPES[dtype])
    image = np.zeros((1, 70, 70, 3), np.float32)
    return model, jax.jit(model.init)(jax.random.key(0), image)["params"]


def measure(model, params, photographs, arguments, *, buckets):
    """Labels all photographs; programs, seconds and the labels."""
    compiled = []

    def listen(event, seconds, **_):
        if event == COMPILATION:
            compiled.append(seconds)

    mesh = label_teacher.local_mesh()
    params = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
    start = label_teacher.make_start(model, params, mesh)
    shapes = set()

    def watched(images):
        shapes.add(images.shape)
        return start(images)

    teacher = label_teacher.Teacher(
        watched, mesh.size, "", arguments.batch, arguments.short_side_px, buckets
    )
    shard = label_run.ShardInHand("photographs", None, photographs)
    jax.monitoring.register_event_duration_secs_listener(listen)
    ahead = {"ahead": 2 * arguments.workers} if arguments.workers else {}
    with label.encoders(arguments.workers) as pool:
        if pool:
            list(pool.map(abs, range(9 * arguments.workers)))  # until they have started
        begin = time.perf_counter()
        for _ in label_run.run(
            teacher, [shard], lambda shard: None, check=lambda: None, pool=pool, **ahead
        ):
            pass
        seconds = time.perf_counter() - begin
    jax.monitoring.unregister_event_duration_listener(listen)
    return {
        "programs": len(shapes),
        "seconds": seconds,
        "compile_seconds": sum(compiled),
        "images_per_s": len(photographs) / seconds,
        "images_per_s_once_compiled": len(photographs) / max(seconds - sum(compiled), 1e-9),
        "labels": [labels.decode_label(shard.labels[i]) for i in range(len(photographs))],
    }


def difference(ones, others):
    """How far two ways of labelling are apart, as this file's text says."""
    shares = []
    for one, other in zip(ones, others, strict=True):
        if "reason" in one or np.array_equal(one["disparity"], other["disparity"]):
            continue
        x, y = one["disparity"].ravel().astype(float), other["disparity"].ravel().astype(float)
        scale, shift = np.polyfit(x, y, 1) if np.ptp(x) else (1.0, 0.0)
        shares.append(float(np.abs(scale * x + shift - y).mean() / max(np.ptp(y), 1e-9)))
    found = {"images_changed": len(shares), "images": len(ones)}
    if shares:
        found |= {"median": statistics.median(shares), "p95": float(np.percentile(shares, 95))}
    return found


def count_programs(files):
    """Network shapes of all images at the paper's size, by way."""
    sizes = [read_image(path).shape[:2] for path in files]
    return {
        "images": len(sizes),
        **{
            name: len({label_teacher.network_shape(*s, FULL_PX, buckets=buckets) for s in sizes})
            for name, buckets in (("nine shapes", True), ("own shapes", False))
        },
    }


def print_table(result):
    print(
        f"{result['photographs']} photographs at {result['short_side_px']} px, {result['device']}"
    )
    for name, figures in result["ways"].items():
        print(
            f"{name:12} {figures['programs']:3} programs  {figures['compile_seconds']:6.1f} s "
            f"compiling  {figures['images_per_s']:6.2f} images/s  "
            f"{figures['images_per_s_once_compiled']:6.2f} once compiled"
        )
    print(f"faster by {result['faster_by']:.2f}; labels differ by {result['labels_differ_by']}")
    print(f"programs at {FULL_PX} px: {result[f'programs_at_{FULL_PX}_px']}")


if __name__ == "__main__":
    main()
