"""The processes that train_step.py starts: one runtime each, or dav's parts, or the weights.

A case is a dict: size, crop_px, labelled and unlabelled (numbers of images), dtype, and the folder
of the weights that every runtime starts from. No framework is imported but the one at work.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def main():
    job, *arguments = sys.argv[1:]
    case = json.loads(arguments[-1])
    if job == "serve":
        return serve(arguments[0], case)
    if job == "parts":
        from train_step_parts import time_parts

        return print(json.dumps(time_parts(case)))
    write_weights(case)
    print("null")


def serve(name, case):
    """Answers each line of the standard input: `step` and `product` with the seconds that a step
    and a product of two square matrices take, `peak` in MiB."""
    step = start_dav(case) if name == "dav" else start_torch(case, compiled=name == "compile")
    product = (jax_product if name == "dav" else torch_product)(product_side(), case["dtype"])
    answers = {
        "step": lambda: timed(step),
        "product": lambda: timed(product),
        "peak": lambda: peak_memory_mib(name),
    }
    for line in sys.stdin:
        print(answers[line.strip()](), flush=True)


def start_dav(case):
    """A function that makes one step and waits for it."""
    from dav.runtime.memory import keep_freed_memory

    keep_freed_memory()
    import jax

    from dav import recipe
    from dav.runtime import parallel

    trainer = recipe.make_trainer(make_config(case))
    holder, frozen = {"state": trainer.init()}, trainer.frozen()
    batch = jax.device_put(make_batch(case), parallel.batch_sharding(trainer.mesh))

    def step():
        holder["state"], metrics = trainer.step(holder["state"], frozen, batch)
        jax.block_until_ready((holder["state"], metrics))

    return step


def start_torch(case, *, compiled):
    import plain_student
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = make_config(case)
    random.seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    student = plain_student.load(
        case["folder"],
        config.optimizer.to_dict(),
        config.steps,
        margin=config.objective.margin,
        device=device,
        dtype=case["dtype"],
        compiled=compiled,
    )
    batch = plain_student.to_tensors(make_batch(case), device)

    def step():
        plain_student.train_step(student, batch).item()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def product_side():
    """Rows of the square matrices whose product tells what a framework reaches at best."""
    return 8192 if has_gpu() else 1024


def jax_product(side, dtype):
    import jax
    import jax.numpy as jnp

    x = jnp.ones((side, side), dtype)
    multiply = jax.jit(lambda x: x @ x)
    return lambda: multiply(x).block_until_ready()


def torch_product(side, dtype):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.ones((side, side), dtype=getattr(torch, dtype), device=device)

    def product():
        x @ x
        if device == "cuda":
            torch.cuda.synchronize()

    return product


def make_config(case):
    """The student's recipe of a case."""
    from dav.main import parse

    config, _, _ = parse(["dav", f"--config={ROOT / 'configs' / 'student.py'}"])
    config.model.size = case["size"]
    config.crop_px = tuple(case["crop_px"])
    config.batch.labelled, config.batch.unlabelled = case["labelled"], case["unlabelled"]
    config.model.dtype = case["dtype"]
    return config


def make_batch(case):
    """Random images and targets; every pixel is valid."""
    rng = np.random.default_rng(0)
    sizes = {kind: (case[kind], *case["crop_px"]) for kind in ("labelled", "unlabelled")}
    return {
        kind: {
            "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
            "disparity": rng.random(size, dtype=np.float32),
            "valid": np.ones(size, bool),
        }
        for kind, size in sizes.items()
    }


def write_weights(case):
    """The random weights of a fresh network, as a folder of transformers."""
    import jax

    from dav.models.depth_anything import SIZES, DepthAnything
    from dav.weights.load import Weights
    from dav.weights.save import save_transformers

    shutil.rmtree(case["folder"], ignore_errors=True)
    architecture = SIZES[case["size"]]
    init = jax.jit(DepthAnything(architecture).init)
    params = jax.device_get(init(jax.random.key(0), np.zeros((1, 28, 28, 3)))["params"])
    save_transformers(case["folder"], Weights(params, architecture, case["size"]))


def timed(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def peak_memory_mib(name):
    """Of this process, or on a GPU the framework's count of the device's memory."""
    if not has_gpu():
        status = Path("/proc/self/status").read_text()  # rusage inherits the parent's peak
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    if name == "dav":
        import jax

        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def has_gpu():
    return shutil.which("nvidia-smi") is not None and bool(gpu_name())


def gpu_name():
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.partition("\n")[0]


if __name__ == "__main__":
    main()
