"""Compiles the training step of every recipe of paper scale for TPU pods; writes docs/pods.md.

    python tools/pod_table.py [--recipes=student:vits,…] [--pods=v5e:16x16,v5p:4x4x4,v6e:8x8]
                              [--tries=4] [--out=benchmarks/results/pods.json] [--docs=FILE.md]

Needs the extra `tpu`, no TPU. Each step is compiled in a process of its own, with as few images on
a chip as the recipe's kinds allow, then with more, to find the most that fit: exactly below 40
times the smallest batch, above to a twentieth. --tries is how often at most, 1 leaves out the
search. What stands in --out is not compiled again.
--recipes= with no name: none is compiled, the page is written from what is there.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
RECIPES = ("student:vits", "student:vitb", "student:vitl", "teacher:vitl", "teacher:v2")
RECIPES += ("student:v2-vits", "student:v2-vitb", "student:v2-vitl", "teacher:vits", "teacher:vitb")
PODS = ("v5e:16x16", "v5p:4x4x4", "v6e:8x8")
# Chips that share the weights, where a chip alone cannot hold them beside an image's activations.
FSDP = {("teacher:v2", "v5e:16x16"): 16, ("teacher:v2", "v6e:8x8"): 8}
TOLERANCE = 20  # The search ends where the next number tried would be less than a 20th more.
GIB = 2**30


def main():
    arguments = parse_arguments()
    if arguments.one:
        return print(json.dumps(compile_one(**json.loads(arguments.one))))
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for number in range(1, arguments.tries + 1):  # breadth first: every recipe once, then again
        for recipe in filter(None, arguments.recipes.split(",")):
            for pod in arguments.pods.split(","):
                compile_next(rows, recipe, pod, number, arguments.out)
    text = page(rows)
    print(text)
    if arguments.docs:
        arguments.docs.write_text(text)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--pods", default=",".join(PODS))
    parser.add_argument("--tries", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "pods.json")
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def compile_next(rows, recipe, pod, number, out):
    """Compiles the recipe's `number`-th case for the pod, if there is one that is not yet known."""
    known = rows_of(rows, recipe, pod)
    if len(known) >= number or (times := next_times(known)) is None:
        return
    case = {"recipe": recipe, "pod": pod, "times": times, "fsdp": FSDP.get((recipe, pod), 1)}
    print(f"{recipe} on {pod}, smallest batch × {times}", flush=True)
    done = subprocess.run(
        [sys.executable, __file__, f"--one={json.dumps(case)}"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"{case} failed; its last words are above")
    rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"  {gib(rows[-1]['needed_bytes'])} of {gib(rows[-1]['limit_bytes'])}", flush=True)
    out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def rows_of(rows, recipe, pod):
    return [row for row in rows if (row["recipe"], row["pod"]) == (recipe, pod)]


def next_times(known):
    """By what the smallest batch is multiplied next; None once the most that fits is known."""
    if not known:
        return 1
    fitting = {row["times"]: row["needed_bytes"] for row in known if row["fits"]}
    most = max(fitting, default=0)
    least = min((row["times"] for row in known if not row["fits"]), default=None)
    if least is not None and least - most <= max(1, most // TOLERANCE):
        return None
    # Near a chip's limit the compiler saves memory, so that more fit than a line would have it.
    near = fitting and fitting[most] > 0.85 * known[0]["limit_bytes"]
    guess = most + max(1, most // 8) if near else max(most + 1, guess_times(known))
    return guess if least is None else min(guess, (most + least) // 2)


def guess_times(known):
    """How many times the smallest batch fill a chip, if memory grows linearly: by the two cases
    nearest to its limit, or by one and what does not depend on the batch, state and gradients."""
    limit = known[0]["limit_bytes"]
    near = sorted(known, key=lambda row: abs(row["needed_bytes"] - limit))[:2]
    points = [(row["times"], row["needed_bytes"]) for row in near]
    if len(points) == 1:
        points.append((0, known[0]["fixed_bytes"]))
    (t1, b1), (t2, b2) = points
    if b1 == b2:
        return t1
    return int(t1 + (limit - b1) * (t1 - t2) / (b1 - b2))


def compile_one(*, recipe, pod, times, fsdp):
    """One compilation in this process → the row of the table."""
    from dav.runtime import topology

    topology.prepare_environment()
    from dav import plan_costs, plan_topology
    from dav import recipe as recipes
    from dav.runtime import traffic

    there = topology.pod(pod)
    config = make_config(recipe, len(there.devices) * times, fsdp)
    trainer = recipes.make_trainer(config, devices=there.devices)
    verdict = plan_topology.compile_step(config, trainer, there)
    held = plan_costs.state_bytes(trainer.shapes) + plan_costs.state_bytes(trainer.shapes.params)
    sent = traffic.sent_by_kind(verdict.collectives)
    return {
        **{"recipe": recipe, "pod": pod, "chips": len(there.devices), "times": times},
        **{"fsdp": fsdp, "batch": config.batch.to_dict(), "fits": verdict.fits},
        **{"needed_bytes": verdict.needed_bytes, "limit_bytes": there.hbm_bytes},
        **{"argument_bytes": verdict.argument_bytes, "temporary_bytes": verdict.temporary_bytes},
        **{"code_bytes": verdict.code_bytes, "fixed_bytes": held},
        "estimated_bytes": held + estimate(config, trainer),
        "sent_bytes": {kind: size for kind, (_, size) in sent.items()},
        "expected_sent_bytes": expected_sent(config, trainer),
        "seconds": round(verdict.seconds),
    }


def make_config(recipe, smallest, fsdp):
    """The recipe with its smallest proportion of kinds `smallest` times."""
    from dav.main import parse

    name, preset = recipe.split(":")
    config, *_ = parse(["dav", f"--config={ROOT / 'configs' / name}.py:{preset}"])
    unit = min(config.batch.values())
    for kind, images in config.batch.items():
        config.batch[kind] = images // unit * smallest
    config.mesh.fsdp = fsdp
    return config


def estimate(config, trainer):
    """What dav reckons without a compiler beside state and gradients, in bytes of one chip."""
    from dav import folders, plan_costs

    images = sum(config.batch.values()) / trainer.mesh.size
    frozen = trainer.shapes.params["encoder"] if folders.aligns_features(config) else ()
    activations = plan_costs.activation_bytes(config, plan_costs.LANES)
    return plan_costs.state_bytes(frozen) + int(images * activations)


def expected_sent(config, trainer):
    """What a chip must send in a step, in bytes, by traffic.expected_sent_bytes: weights and their
    gradients in bfloat16."""
    from dav.runtime import traffic

    half = [size // 2 for size in traffic.parameter_bytes(trainer.shapes.params)]
    return traffic.expected_sent_bytes(*half, **trainer.mesh.shape)


def page(rows):
    """docs/pods.md: of every recipe and pod the smallest batch, and the largest found."""
    lines = [HEAD]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        for pod in dict.fromkeys(row["pod"] for row in rows):
            if known := rows_of(rows, recipe, pod):
                lines.append(line_of(known))
    return "\n".join(lines) + "\n"


def line_of(known):
    first = known[0]
    most = max((row for row in known if row["fits"]), key=lambda row: row["times"], default=None)
    failing = [row for row in known if not row["fits"]]
    least = min(failing, key=lambda row: row["times"], default=None)
    cells = [first["recipe"], f"{first['pod']} ({first['chips']})", str(first["fsdp"])]
    cells += [images_of(first), gib(first["needed_bytes"]), gib(first["estimated_bytes"])]
    cells += traffic_of(first)
    if most is None:
        cells += ["none fits", ""]
    elif len(known) == 1:
        cells += ["not searched", ""]
    else:
        bound = "more not tried" if least is None else f"{images_of(least)} do not fit"
        cells += [f"{images_of(most)}; {bound}", gib(most["needed_bytes"])]
    return f"| {' | '.join([*cells, gib(first['limit_bytes'])])} |"


def traffic_of(row):
    """Cells: what a chip sends for weights and gradients, and its ratio to the formula."""
    from dav.runtime import traffic

    if not row["fits"]:
        return ["–", "–"]
    sent = traffic.sent_for_weights(row["sent_bytes"])
    return [f"{sent / 1e6:,.0f} MB", f"{sent / row['expected_sent_bytes']:.2f}"]


def images_of(row):
    return " + ".join(str(images // row["chips"]) for images in row["batch"].values())


def gib(size):
    return f"{size / GIB:.2f} GiB"


TITLES = ("recipe", "pod (chips)", "fsdp", "smallest batch", "needed", "estimate")
TITLES += ("sent", "of formula", "largest batch found", "needed", "limit")
HEAD = f"""\
# Memory on TPU pods

The training step of each recipe of paper scale, compiled by TPU's own compiler for a pod by
`python tools/pod_table.py --docs=docs/pods.md`; all figures are in `benchmarks/results/pods.json`.
No TPU has run any of it: memory and traffic are what the compiler says, speed it does not tell.

Images are those on one chip, labelled + unlabelled. Needed: state, frozen encoder, batch,
temporaries and program of one chip. Estimate: what `--job=plan` reckons without compiling. Sent:
by each chip in a step of the smallest batch, for weights and gradients; and its ratio to the
formula (`expected_sent_bytes` in `dav/runtime/traffic.py`), with gradients summed in bfloat16, as
the matrix products give them. Crops of 518×518 in bfloat16, nothing recomputed, no accumulation;
`--config.accumulate`, `--config.model.remat` and `--config.mesh.fsdp` make room for more. Near a
chip's limit memory hardly grows with the batch any more: there the compiler makes room by itself,
by computing anew or in smaller parts, at a price in time that it does not tell. To compile in a
third of the time, what the compiler does for speed alone is switched off (`QUICK_COMPILATION` in
`dav/runtime/topology.py`): temporaries and traffic are the same, checked on the student of ViT-S,
and the program is counted twice, as large as it gets when compiled in full.

| {" | ".join(TITLES)} |
|{"---|" * len(TITLES)}"""

if __name__ == "__main__":
    main()
