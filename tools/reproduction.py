"""What the whole reproduction takes, before anything is paid for: the table of docs/scale.md.

    python tools/reproduction.py [--mfu=0.4] [--out=benchmarks/results/reproduction.json]

Operations are counted, bytes are those of docs/data.md and docs/labels.md, hours follow from the
devices' published peak rates at the given MFU, which is a guess until somebody has measured it.
Beside the hours: the cores that all hosts need to decode and crop images at that speed.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from dav import plan_costs, recipe  # noqa: E402
from dav.main import parse  # noqa: E402
from dav.models.depth_anything import SIZES  # noqa: E402
from dav.runtime import perf  # noqa: E402

# Name of the cluster: jax's name of its devices, how many.
CLUSTERS = {
    "256 v5e": ("TPU v5 lite", 256),
    "64 v5p": ("TPU v5", 64),
    "64 v6e": ("TPU v6 lite", 64),
    "64 H100": ("NVIDIA H100 80GB HBM3", 64),
}
TRAININGS = ("teacher:vitl", "student:vits", "student:vitb", "student:vitl")
LABEL_GRID = (37, 49)  # patches of a 4:3 image at 518 px


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mfu", type=float, default=0.4)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "reproduction.json"
    )
    arguments = parser.parse_args()
    stages = make_stages()
    for stage in stages.values():
        stage["hours"] = {name: hours(stage["flop"], name, arguments.mfu) for name in CLUSTERS}
    result = {"mfu": arguments.mfu, "stages": stages, "bytes": volumes()}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(page(result))


def make_stages():
    """{stage: images that pass through the network, operations}."""
    stages = {}
    for name in TRAININGS:
        config = config_of(name)
        images = config.steps * sum(config.batch.values())
        stages[name] = {"images": images, "flop": config.steps * recipe.step_flops(config)}
    student, size = config_of("student:vits"), SIZES["vitl"]
    look = perf.encoder_flops(size, LABEL_GRID) + perf.decoder_flops(size, LABEL_GRID)
    images = student.images.unlabelled
    labels = {"labels, one look by vitl": {"images": images, "flop": images * look}}
    first = TRAININGS[0]
    return {first: stages.pop(first), **labels, **stages}


def config_of(name):
    file, preset = name.split(":")
    return parse(["dav", f"--config={ROOT / 'configs' / file}.py:{preset}"])[0]


def hours(flop, cluster, mfu):
    kind, devices = CLUSTERS[cluster]
    return flop / (devices * perf.device_peak(kind) * mfu) / 3600


def volumes():
    """Bytes that are stored."""
    images = config_of("student:vits").images
    stored = {kind: plan_costs.STORED_BYTES[kind] * images[kind] for kind in images}
    labels = images.unlabelled * plan_costs.LABEL_BYTES_PER_PX * 518 * 518 * 4 / 3
    return stored | {"labels": labels}


def page(result):
    stages = result["stages"]
    lines = [
        f"| stage | images | EFLOP | {' | '.join(CLUSTERS)} |",
        f"|---|---|---|{'---|' * len(CLUSTERS)}",
    ]
    for name, stage in stages.items():
        times = " | ".join(cell(stage, cluster) for cluster in CLUSTERS)
        images = f"{stage['images'] / 1e6:,.1f} M"
        lines.append(f"| {name} | {images} | {stage['flop'] / 1e18:,.1f} | {times} |")
    images, flop = (sum(stage[k] for stage in stages.values()) for k in ("images", "flop"))
    whole = [sum(stage["hours"][cluster] for stage in stages.values()) for cluster in CLUSTERS]
    times = " | ".join(f"{spent:.1f} h" for spent in whole)
    lines.append(f"| all of it | {images / 1e6:,.1f} M | {flop / 1e18:,.1f} | {times} |")
    stored = {kind: f"{size / 1e12:.2f} TB" for kind, size in result["bytes"].items()}
    total = sum(result["bytes"].values()) / 1e12
    return "\n".join(
        [
            *lines,
            "",
            f"At {result['mfu']:.0%} MFU. Stored: labelled images {stored['labelled']}, unlabelled "
            f"{stored['unlabelled']}, labels {stored['labels']}: {total:.1f} TB.",
        ]
    )


def cell(stage, cluster):
    """Hours, and the cores that decode at that speed."""
    spent = stage["hours"][cluster]
    cores = stage["images"] / (spent * 3600) * 518**2 / plan_costs.CROPS_PER_CORE_S
    return f"{spent:.1f} h, {cores:,.0f} cores"


if __name__ == "__main__":
    main()
