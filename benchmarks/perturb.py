"""How fast the strong perturbations are, beside torchvision doing the same.

    python benchmarks/perturb.py [--turns=15] [--out=FILE.json]

In one run and in turns, on batches of 8 uint8 images: dav's whole perturbation and its parts; the
conversion of the images to float32 alone, which is the least it can cost; and torchvision's
transforms with the same numbers, image by image, on float32 and on uint8 tensors. Where torchvision
does not import it is left out, and said. Prints medians of the processor's time, of all threads
together, which other programs on the machine hardly change, and their ratios to dav's.
"""

import argparse
import json
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from dav.objectives import perturb
from dav.runtime.memory import keep_freed_memory

SIZES_PX = ((168, 224), (518, 518))
BATCH = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", default="benchmarks/results/perturb_cpu.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    transform, versions = torchvision_transform()
    rows = [measure(size_px, arguments.turns, transform) for size_px in SIZES_PX]
    for row in rows:
        print(f"\n{BATCH} images of {row['size_px'][0]}×{row['size_px'][1]}")
        for name, milliseconds in row["ms"].items():
            print(f"  {name:<22} {milliseconds:9.2f} ms   {row['of_dav'][name]:7.2f} × dav")
    machine = {"device": jax.devices()[0].device_kind, "machine": platform.machine()}
    versions = {"jax": jax.__version__} | versions
    result = machine | {"versions": versions, "batch": BATCH, "rows": rows}
    with open(arguments.out, "w") as file:
        file.write(json.dumps(result, indent=1) + "\n")


def torchvision_transform():
    """dav's perturbations as a transform of one torch tensor [3, H, W], or None; and versions."""
    try:
        import torch
        import torchvision
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:  # the latter: a wheel for another PyTorch
        print(f"without torchvision, which does not import: {error}")
        return None, {}
    strengths = (perturb.BRIGHTNESS, perturb.CONTRAST, perturb.SATURATION, perturb.HUE)
    blur = v2.GaussianBlur(2 * perturb.BLUR_RADIUS_PX + 1, perturb.BLUR_SIGMA_PX)
    steps = [
        v2.RandomApply([v2.ColorJitter(*strengths)], perturb.JITTER_PROBABILITY),
        v2.RandomGrayscale(perturb.GRAY_PROBABILITY),
        v2.RandomApply([blur], perturb.BLUR_PROBABILITY),
    ]
    torch.manual_seed(0)
    torch.set_num_threads(1)  # its threads would wait for one another by spinning
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    return v2.Compose(steps), versions


def measure(size_px, turns, transform):
    """Medians in milliseconds of the processor by name, and each over dav's."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *size_px, 3), np.uint8)
    runs = dav_runs(images) | (torchvision_runs(images, transform) if transform else {})
    seconds = {name: [] for name in runs}
    for turn in range(turns + 2):  # two to compile and warm up
        for name, run in runs.items():
            begin = time.process_time()
            jax.block_until_ready(run(turn))
            if turn >= 2:
                seconds[name].append(time.process_time() - begin)
    medians = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    ratios = {name: median / medians["dav"] for name, median in medians.items()}
    return {"size_px": size_px, "ms": medians, "of_dav": ratios}


def dav_runs(images):
    """The whole and its parts by name, as functions of the turn, which is the seed."""
    images = jnp.asarray(images)
    to_float = jax.jit(lambda images: images.astype(jnp.float32) / 255)
    to_planes = jax.jit(lambda images: tuple(images[..., c] for c in range(3)))
    whole = jax.jit(lambda seed, images: perturb.perturb(jax.random.key(seed), to_float(images)))
    draw = jax.jit(lambda seed: perturb.draw(jax.random.key(seed), BATCH))
    jitter, blur = jax.jit(perturb.color_jitter), jax.jit(perturb.gaussian_blur)
    planes, draws = to_planes(to_float(images)), draw(0)
    return {
        "dav": lambda turn: whole(turn, images),
        "dav, draws": lambda turn: draw(turn),
        "dav, jitter": lambda turn: jitter(planes, draws.order, draws.factors),
        "dav, blur": lambda turn: blur(planes, draws.sigma_px),
        "to float32 alone": lambda turn: to_float(images),
    }


def torchvision_runs(images, transform):
    """The same by torchvision, whose draws go on from turn to turn; without any conversion."""
    import torch

    whole = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    as_float = whole.float() / 255
    return {
        "torchvision, float32": lambda turn: [transform(image) for image in as_float] and None,
        "torchvision, uint8": lambda turn: [transform(image) for image in whole] and None,
    }


if __name__ == "__main__":
    main()
