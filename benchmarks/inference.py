"""How fast one forward pass is, against the frameworks that users come from.

    python benchmarks/inference.py [--pairs=11] [--runtimes=dav,eager,compile,onnx] [--out=FILE]

On a CPU: ViT-S in float32 at 518×518, batch 1 and 4, and at 252×252, by dav, by transformers
(PyTorch eager), by torch.compile of the same, and by ONNX Runtime, all with the same weights on the
same threads, in turns, medians. On a GPU: ViT-S, B and L in bfloat16 at 518×518, batch 1, 8 and 32,
against transformers with SDPA, eager and compiled. Beside each stands its share of the rate of a
large square matrix product in the same framework (for ONNX Runtime: in PyTorch).
Prints a table, writes JSON. Needs the extra `parity`, and for ONNX onnxruntime and onnxscript.

Peak memory is that of a process of its own that loads the weights and runs the shape three times:
its resident set, or on a GPU the framework's count of the device's memory.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the frameworks share the GPU

import numpy as np

# The frameworks are imported where they are used: the memory of each is measured without the rest.

ROOT = Path(__file__).parent.parent
CPU_CASES = [("vits", 518, 1), ("vits", 518, 4), ("vits", 252, 1)]
GPU_CASES = [(size, 518, batch) for size in ("vits", "vitb", "vitl") for batch in (1, 8, 32)]
MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MATMUL_SIDE = {"cpu": 2048, "gpu": 8192}
DTYPE = {"cpu": "float32", "gpu": "bfloat16"}
COLUMNS = (
    "runtime",
    "ms",
    "images/s",
    "dav faster by",
    "share of matmul",
    "peak MiB",
    "differs by",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--runtimes", default="dav,eager,compile,onnx")
    parser.add_argument("--out")
    parser.add_argument("--memory_of", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        name, device, folder, side_px, batch = arguments.memory_of
        return print_memory(name, folder, random_image(int(side_px), int(batch)), device)
    import jax

    device = "cpu" if jax.default_backend() == "cpu" else "gpu"
    cases, runtimes = (GPU_CASES, arguments.runtimes.split(","))
    if device == "cpu":
        cases = CPU_CASES
    else:
        runtimes = [name for name in runtimes if name != "onnx"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            weights = write_weights(case[0], Path(folder))
            rows += measure(case, runtimes, weights, device, arguments.pairs)
            print_table(case, rows[-len(runtimes) :], device)
    out = arguments.out or ROOT / "benchmarks" / "results" / f"inference_{device}.json"
    Path(out).write_text(json.dumps(machine(device) | {"rows": rows}, indent=1) + "\n")


def write_weights(size, folder):
    """A folder of transformers with the random weights of a fresh network."""
    import jax

    from dav.models.depth_anything import SIZES, V2_TAPS, DepthAnything
    from dav.weights.load import Weights
    from dav.weights.save import save_transformers

    target = folder / size
    if not target.exists():
        architecture = dataclasses.replace(SIZES[size], taps=V2_TAPS[size], position_offset=0.0)
        init = jax.jit(DepthAnything(architecture).init)
        params = jax.device_get(init(jax.random.key(0), np.zeros((1, 28, 28, 3)))["params"])
        save_transformers(target, Weights(params, architecture, size))
    return target


def measure(case, runtimes, folder, device, pairs):
    """One row a runtime: medians over runs in turns."""
    from dav.models.depth_anything import SIZES
    from dav.runtime import perf

    size, side_px, batch = case
    image = random_image(side_px, batch)
    calls = {name: make(name, folder, image, device) for name in runtimes}
    products = {name: make_product(name, device) for name in runtimes}
    seconds = {name: ([], []) for name in runtimes}
    for name in runtimes:
        calls[name](), calls[name](), products[name]()
    for _ in range(pairs):
        for name in runtimes:
            seconds[name][0].append(timed(calls[name]))
            seconds[name][1].append(timed(products[name]))
    medians = {name: [statistics.median(s) for s in pair] for name, pair in seconds.items()}
    outputs = {name: as_array(call()) for name, call in calls.items()}
    grid = (side_px // 14, side_px // 14)
    flop = batch * (perf.encoder_flops(SIZES[size], grid) + perf.decoder_flops(SIZES[size], grid))
    product_flop = 2 * MATMUL_SIDE[device] ** 3
    return [
        {
            "network": size,
            "side_px": side_px,
            "batch": batch,
            "runtime": name,
            "seconds": forward,
            "images_per_s": batch / forward,
            "dav_faster_by": statistics.median(
                theirs / ours
                for theirs, ours in zip(seconds[name][0], seconds["dav"][0], strict=True)
            ),
            "share_of_matmul_rate": flop / forward * product / product_flop,
            "matmul_gflop_per_s": product_flop / product / 1e9,
            "peak_memory_mib": peak_memory(name, device, folder, side_px, batch),
            "difference": float(np.abs(outputs[name] - outputs["dav"]).max())
            / float(outputs["dav"].std()),
        }
        for name, (forward, product) in medians.items()
    ]


def random_image(side_px, batch):
    """RGB in [0, 1], float32 [batch, side_px, side_px, 3]."""
    return np.random.default_rng(0).random((batch, side_px, side_px, 3), np.float32)


def timed(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def as_array(output):
    return np.asarray(output.float().cpu() if hasattr(output, "cpu") else output, np.float32)


def make(name, folder, image, device):
    """A function without arguments that runs one forward pass and waits for its map."""
    if name == "dav":
        return make_dav(folder, image, device)
    if name == "onnx" and onnx_path(folder, image).exists():
        return make_onnx_session(folder, image)
    import torch

    torch.set_num_threads(threads())
    pixels = torch.from_numpy(pixels_of(image))
    if name == "onnx":
        export_onnx(folder, pixels, onnx_path(folder, image))
        return make_onnx_session(folder, image)
    return make_torch(folder, pixels, device, compiled=name == "compile")


def pixels_of(image):
    """Normalised, channels first."""
    pixels = (image - np.float32(MEAN_RGB)) / np.float32(STD_RGB)
    return pixels.transpose(0, 3, 1, 2).copy()


def make_dav(folder, image, device):
    """What `predict` runs for a batch."""
    import jax

    import dav
    from dav.inference import _forward, _forward_one_by_one

    model = dav.load(folder, dtype=DTYPE[device])
    forward = _forward_one_by_one if device == "cpu" else _forward
    image = jax.device_put(image)
    return lambda: forward(model.params, image, model.architecture, model.dtype).block_until_ready()


def make_torch(folder, pixels, device, *, compiled):
    import torch
    from transformers import AutoModelForDepthEstimation

    where = "cuda" if device == "gpu" else "cpu"
    dtype = getattr(torch, DTYPE[device])
    model = AutoModelForDepthEstimation.from_pretrained(folder, dtype=dtype)
    assert model.backbone.config._attn_implementation == "sdpa"
    model, pixels = model.to(where).eval(), pixels.to(where, dtype)
    if compiled:
        model = torch.compile(model)

    def run():
        with torch.inference_mode():
            depth = model(pixels).predicted_depth
        if device == "gpu":
            torch.cuda.synchronize()
        return depth

    return run


def onnx_path(folder, image):
    return folder / f"{'x'.join(map(str, image.shape))}.onnx"


def export_onnx(folder, pixels, path):
    import torch
    from transformers import AutoModelForDepthEstimation

    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    with torch.inference_mode():
        torch.onnx.export(model, (pixels,), path, dynamo=True, verbose=False)


def make_onnx_session(folder, image):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    path = onnx_path(folder, image)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: pixels_of(image)}
    return lambda: session.run(None, feed)[0]


def make_product(name, device):
    """A large square matrix product in the framework of a runtime."""
    side = MATMUL_SIDE[device]
    if name == "dav":
        import jax

        x = jax.device_put(np.ones((side, side), DTYPE["cpu"])).astype(DTYPE[device])
        multiply = jax.jit(lambda x: x @ x)
        return lambda: multiply(x).block_until_ready()
    import torch

    x = torch.ones(side, side, dtype=getattr(torch, DTYPE[device]))
    if device == "cpu":
        return lambda: x @ x
    x = x.cuda()
    return lambda: (x @ x, torch.cuda.synchronize())


def peak_memory(name, device, folder, side_px, batch):
    """MiB, of a process of its own."""
    command = [sys.executable, __file__, "--memory_of", name, device, folder, side_px, batch]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_memory(name, folder, image, device):
    call = make(name, Path(folder), image, device)
    for _ in range(3):
        call()
    if device == "cpu":
        status = Path("/proc/self/status").read_text()  # rusage inherits the parent's peak
        return print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
    if name == "dav":
        import jax

        return print(jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20)
    import torch

    print(torch.cuda.max_memory_allocated() / 2**20)


def threads():
    return len(os.sched_getaffinity(0))


def machine(device):
    """What the figures were measured on."""
    import jax

    versions = {}
    for name in ("jax", "torch", "transformers", "onnxruntime"):
        if name in sys.modules:
            versions[name] = sys.modules[name].__version__
    return {
        "device": jax.devices()[0].device_kind if device == "gpu" else platform.machine(),
        "threads": threads(),
        "dtype": DTYPE[device],
        "matmul_side": MATMUL_SIDE[device],
        "versions": versions,
    }


def print_table(case, rows, device):
    size, side_px, batch = case
    print(f"{size} at {side_px}×{side_px}, batch {batch}, {DTYPE[device]}")
    print("".join(f"{column:>17}" for column in COLUMNS))
    for row in rows:
        cells = (
            row["runtime"],
            f"{1e3 * row['seconds']:.1f}",
            f"{row['images_per_s']:.2f}",
            f"{row['dav_faster_by']:.2f}×",
            f"{100 * row['share_of_matmul_rate']:.0f} %",
            f"{row['peak_memory_mib']:.0f}",
            f"{row['difference']:.0e}",
        )
        print("".join(f"{cell:>17}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
