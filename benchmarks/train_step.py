"""How fast the student's training step is, against the same step in PyTorch, and where it goes.

    python benchmarks/train_step.py [--cases=SIZE:HEIGHTxWIDTH:LABELLED+UNLABELLED,...]
                                    [--runtimes=dav,eager,compile] [--turns=9] [--parts=yes|no]
                                    [--data=yes|no] [--profile=DIR] [--out=FILE.json]

--cases     what is trained on what. On a CPU, in float32, mini:168x224:4+8 (the quick start) and
            vits:518x518:1+2 (what 24 GB of memory hold of three programs at a time); on a GPU,
            in bfloat16, vits, vitb and vitl at 518x518 with the largest batch of 1 : 2, up to
            64+128, that every runtime finds memory for.
--runtimes  dav; PyTorch's transformers with the losses written plainly (plain_student.py), as it
            is (eager) and through torch.compile (compile). Needs the extra `parity`.
--turns     steps measured of each, after two to compile and warm up; on a GPU ten times as many.
--parts     also times the parts of dav's step: see train_step_parts.py.
--data      also runs the mini recipe on the sample that comes with dav, from its files, and tells
            what share of the time it waited for data.
--profile   also writes XLA's profile of three steps of each case of dav there, for xprof.

Each runtime is a process of its own, with all cores, as it would be started by itself; on a CPU
they take turns step by step, on a GPU case by case, for they share its memory. Medians. Beside each
step, each framework multiplies two square matrices: what it could reach at best there. dav lets
the C library keep freed memory, as its training does; PyTorch runs as it comes. All have the same
images, which are on the device already. Prints tables, writes JSON.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import train_step_runtimes

ROOT = Path(__file__).parent.parent
CPU_CASES = "mini:168x224:4+8,vits:518x518:1+2"
GPU_CASES = "vits:518x518:64+128,vitb:518x518:64+128,vitl:518x518:64+128"
DATA_STEPS = 40


def main():
    arguments = parse_arguments()
    device = "gpu" if train_step_runtimes.has_gpu() else "cpu"
    dtype = "float32" if device == "cpu" else "bfloat16"
    names = (arguments.cases or (CPU_CASES if device == "cpu" else GPU_CASES)).split(",")
    result = machine(device) | {"dtype": dtype, "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            case = parse_case(name) | {"dtype": dtype, "folder": f"{folder}/{name.split(':')[0]}"}
            call("weights", case)
            result["cases"].append(measure(case, device, arguments))
            print_case(result["cases"][-1])
        if arguments.data:
            result["data_wait_share_mini"] = data_wait(Path(folder))
            print(f"waiting for data, mini on the sample: {result['data_wait_share_mini']:.1%}")
    out = arguments.out or ROOT / "benchmarks" / "results" / f"train_step_{device}.json"
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases")
    parser.add_argument("--runtimes", default="dav,eager,compile")
    parser.add_argument("--turns", type=int, default=9)
    for switch in ("parts", "data"):
        parser.add_argument(f"--{switch}", type=lambda text: text == "yes", default=True)
    parser.add_argument("--profile")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    arguments.runtimes = arguments.runtimes.split(",")
    return arguments


def parse_case(name):
    """mini:168x224:4+8 → what train_step_runtimes takes."""
    size, crop, batch = name.split(":")
    labelled, unlabelled = map(int, batch.split("+"))
    crop_px = tuple(map(int, crop.split("x")))
    return {"size": size, "crop_px": crop_px, "labelled": labelled, "unlabelled": unlabelled}


def measure(case, device, arguments):
    """One case by all runtimes, then dav's parts."""
    if device == "gpu":
        case = shrink_to_fit(case, arguments.runtimes)
        runs = {name: run_alone(name, case, 10 * arguments.turns) for name in arguments.runtimes}
    else:
        runs = run_in_turns(case, arguments.runtimes, arguments.turns)
    figures = {"case": {k: v for k, v in case.items() if k != "folder"}}
    figures |= {"turns": arguments.turns, "runtimes": {}}
    side = train_step_runtimes.product_side()
    images = case["labelled"] + case["unlabelled"]
    for name, run in runs.items():
        seconds = statistics.median(run["seconds"])
        figures["runtimes"][name] = {
            "seconds": seconds,
            "images_per_s": images / seconds,
            "peak_memory_mib": run["peak_memory_mib"],
            "product_gflop_per_s": 2e-9 * side**3 / statistics.median(run["products"]),
        }
        if "dav" in runs:
            ratio = [a / b for a, b in zip(run["seconds"], runs["dav"]["seconds"], strict=True)]
            figures["runtimes"][name]["dav_faster_by"] = statistics.median(ratio)
    if arguments.parts:
        figures["parts"] = call("parts", case, turns=arguments.turns, profile=arguments.profile)
    return figures


def run_in_turns(case, names, turns):
    """What `figures_of` tells of each runtime, all of them started, one working at a time."""
    with contextlib.ExitStack() as stack:
        runtimes = {name: stack.enter_context(started(name, case)) for name in names}
        spent = {name: [] for name in names}
        for _ in range(turns + 2):
            for name, runtime in runtimes.items():
                spent[name].append((ask(runtime, "step"), ask(runtime, "product")))
        return {name: figures_of(runtime, spent[name]) for name, runtime in runtimes.items()}


def run_alone(name, case, turns):
    with started(name, case) as runtime:
        spent = [(ask(runtime, "step"), ask(runtime, "product")) for _ in range(turns + 2)]
        return figures_of(runtime, spent)


def figures_of(runtime, spent):
    """Seconds of each step and product, the first two left out, and the peak of memory."""
    seconds, products = zip(*spent[2:], strict=True) if spent[2:] else ((), ())
    peak = ask(runtime, "peak")
    return {"seconds": seconds, "products": products, "peak_memory_mib": peak}


def shrink_to_fit(case, names):
    """The case with its batch halved until every runtime makes two steps."""
    while True:
        try:
            for name in names:
                run_alone(name, case, 0)
            return case
        except RuntimeError:
            if case["labelled"] == 1:
                raise
            print(f"{name}: {case['labelled']}+{case['unlabelled']} images of {case['size']} fail")
            case = case | {kind: case[kind] // 2 for kind in ("labelled", "unlabelled")}


@contextlib.contextmanager
def started(name, case):
    """The process of a runtime, which answers to what `ask` writes to it."""
    process = subprocess.Popen(
        [*command("serve"), name, json.dumps(case)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def ask(process, question):
    """The number a runtime answers. Raises RuntimeError if it has died."""
    try:
        process.stdin.write(question + "\n")
        return float(process.stdout.readline())
    except (OSError, ValueError):
        raise RuntimeError(f"{process.args[-2]} failed; its last words are above") from None


def call(job, case, **options):
    """What train_step_runtimes prints as its last line, of a process of its own."""
    done = subprocess.run(
        [*command(job), json.dumps(case | options)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def command(job):
    return [sys.executable, str(Path(__file__).with_name("train_step_runtimes.py")), job]


def data_wait(folder):
    """Share of the second half of a run of the mini recipe that it waited for data."""
    arguments = [
        f"--config={ROOT / 'configs' / 'student.py'}",
        f"--config.steps={DATA_STEPS}",
        "--config.teacher.steps=1",
        "--config.log_every=1",
        f"--config.checkpoint_every={DATA_STEPS}",
        f"--workdir={folder / 'run'}",
    ]
    subprocess.run([sys.executable, "-m", "dav.main", *arguments], check=True, cwd=ROOT)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return waited_share([row for row in map(json.loads, lines) if row["kind"] == "train"])


def waited_share(rows):
    """Share of the time of the second half of a run's lines, of one step each."""
    rows = rows[len(rows) // 2 :]
    seconds = [1 / row["images_per_s"] for row in rows]  # of an image: all steps have as many
    waited = [row["data_wait"] * spent for row, spent in zip(rows, seconds, strict=True)]
    return sum(waited) / sum(seconds)


def machine(device):
    """What the figures were measured on."""
    return {
        "device": train_step_runtimes.gpu_name() if device == "gpu" else platform.machine(),
        "threads": len(os.sched_getaffinity(0)),
    }


def print_case(figures):
    case = figures["case"]
    height, width = case["crop_px"]
    print(
        f"{case['size']} at {height}×{width}, {case['labelled']} labelled and "
        f"{case['unlabelled']} unlabelled images, {case['dtype']}"
    )
    for name, row in figures["runtimes"].items():
        faster = f"{row['dav_faster_by']:.2f}×" if "dav_faster_by" in row else ""
        print(
            f"  {name:<10}{1e3 * row['seconds']:9.1f} ms {row['images_per_s']:8.2f} images/s"
            f"{row['peak_memory_mib']:9.0f} MiB  {faster:<6}"
            f"  products {row['product_gflop_per_s']:,.0f} GFLOP/s"
        )
    for name, value in figures.get("parts", {}).items():
        if isinstance(value, dict):
            print(f"  {name:<34}{1e3 * value['seconds']:9.1f} ms {value['share']:7.1%}")
        else:
            print(f"  {name:<34}{value:9.3g}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
