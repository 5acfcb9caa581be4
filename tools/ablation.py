"""The paper's ablation of its ingredients (arXiv 2401.10891, table 9), scaled down, on real images.

    python tools/ablation.py --data=ROOT --weights=SPEC --out=DIR [--seeds=3] [--docs=FILE.md]

Trains a ViT-S student in four arms: labelled images alone; pseudo-labelled photographs too; strong
perturbations too; feature alignment too. Every arm has the same steps, images a step, encoder to
start from (SPEC's), learning rates and seeds. SPEC's network is the teacher as well. ROOT holds
the sets that tools/prepare_samples.py makes; scenes of the measured ones are in no training set.

Stopped at any time, the same command continues. Writes DIR/ablation.json and, with --docs, the
tables, also of what is finished so far.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

ARMS = {
    "labelled": "labelled images alone",
    "pseudo": "+ pseudo-labelled photographs",
    "strong": "+ strong perturbations",
    "full": "+ feature alignment",
}
LABELLED = ("folder/icl_livingroom", "tum_rgbd")
PHOTOGRAPHS = ("folder/imagenet1000_small", "folder/bsds500", "folder/debian_cc", "folder/kodak")
# By the farthest depth that counts, in metres.
MEASURED = {
    10.0: (
        "folder/redkitchen_7scenes",
        "folder/mosd",
        "folder/uoc",
        "folder/lab_slambook2",
        "folder/nyu",
        "sunrgbd",
    ),
    80.0: ("folder/kitti_annotated", "folder/kitti_raw", "folder/ddad"),
}
CROP_PX = (126, 168)
STEPS = 240
BATCH = (4, 8)  # labelled, unlabelled
LABEL_SIZE_PX = 308  # short side at which the teacher looks
IMAGES_PER_SET = 12
# Two-sided 95 % points of Student's t by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--table_only", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(0 if arguments.table_only else arguments.seeds):
        for arm in ARMS:  # all arms of a seed first: what is finished so far can be compared
            train(arm, seed, arguments.data.absolute(), arguments.weights, out)
            measure(f"{arm}-{seed}", str(out / f"{arm}-{seed}"), arguments.data, out)
    measure("teacher", arguments.weights, arguments.data, out)
    figures = collect(out)
    result = summarise(figures)
    (out / "ablation.json").write_text(json.dumps(result, indent=1) + "\n")
    text = tables(result)
    print(text)
    if arguments.docs:
        replace_tables(arguments.docs, text)


def train(arm, seed, data, weights, out):
    """Trains one student, or what is left of it."""
    preset = "vits" if arm == "full" else f"vits-{arm}"
    settings = {
        "seed": seed,
        "steps": STEPS,
        "data.root": data,
        "data.labelled": LABELLED,
        "data.workers": 0,
        "model.encoder_init": weights,
        "model.version": 2,
        "model.dtype": "float32",
        "short_side_px": CROP_PX[0],
        "train_short_side_px": CROP_PX[0],
        "crop_px": CROP_PX,
        "evaluation.sets": (),
        "optimizer.encoder_lr": 2e-5,
        "optimizer.decoder_lr": 2e-4,
        "optimizer.warmup_steps": STEPS // 20,
        "log_every": 20,
        "checkpoint_every": 60,
        "picture_every": 0,
    }
    if arm == "labelled":
        settings["batch.labelled"] = sum(BATCH)
    else:
        settings |= {
            "batch.labelled": BATCH[0],
            "batch.unlabelled": BATCH[1],
            "data.unlabelled": PHOTOGRAPHS,
            "teacher_weights": weights,
            "labels_dir": out / "labels",
            "label_short_side_px": LABEL_SIZE_PX,
            "label_batch": 4,
        }
    config = [f"--config.{name}={value}" for name, value in settings.items()]
    run(
        "dav.main",
        f"--config=configs/student.py:{preset}",
        f"--workdir={out / arm}-{seed}",
        *config,
    )


def measure(name, weights, data, out):
    """Zero-shot figures of one network, one folder for each cap."""
    for cap_m, sets in MEASURED.items():
        run(
            "dav.evaluate",
            f"--weights={weights}",
            *(f"--data={data / one}" for one in sets),
            f"--out={out / 'figures' / name / f'{cap_m:g}m'}",
            f"--max_depth_m={cap_m}",
            f"--size_px={CROP_PX[0]}",
            f"--limit={IMAGES_PER_SET}",
        )


def run(module, *arguments):
    """Runs a command of dav, its output shown; its failure ends everything."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$", " ".join(command), flush=True)
    if subprocess.run(command).returncode:
        sys.exit(f"failed: {' '.join(command)}")


def collect(out):
    """{network: {data set: (AbsRel, δ1)}} of all that is measured."""
    figures = {}
    for path in sorted((out / "figures").glob("*/*/eval.json")):
        rows = json.loads(path.read_text())["rows"]
        found = {row["data"]: (row["abs_rel"], row["delta1"]) for row in rows}
        figures.setdefault(path.parent.parent.name, {}).update(found)
    return figures


def summarise(figures):
    """Means over seeds with 95 % intervals: of every arm on every set, of the mean over sets, and
    of its difference to the arm before with the same seed."""
    sets = [name for names in MEASURED.values() for name in names]
    whole = {name: found for name, found in figures.items() if set(sets) <= set(found)}
    runs = {arm: [n for n in whole if n.rpartition("-")[0] == arm] for arm in ARMS}
    result = {"sets": sets, "steps": STEPS, "batch": BATCH, "crop_px": CROP_PX, "arms": {}}
    for arm, names in runs.items():
        per_set = {
            one: [interval([whole[n][one][i] for n in names]) for i in (0, 1)] for one in sets
        }
        means = {n: mean_over(whole[n], sets) for n in names}
        result["arms"][arm] = {
            "runs": names,
            "sets": per_set,
            "mean": [interval([means[n][i] for n in names]) for i in (0, 1)],
        }
    for before, arm in zip(list(ARMS), list(ARMS)[1:], strict=False):
        pairs = [(f"{before}-{n.rpartition('-')[2]}", n) for n in runs[arm]]
        steps = [
            [mean_over(whole[b], sets)[i] - mean_over(whole[a], sets)[i] for i in (0, 1)]
            for a, b in pairs
            if a in whole
        ]
        result["arms"][arm]["gain"] = [interval([s[i] for s in steps]) for i in (0, 1)]
    if "teacher" in whole:
        result["teacher"] = {"sets": whole["teacher"], "mean": mean_over(whole["teacher"], sets)}
    return result


def mean_over(found, sets):
    """(AbsRel, δ1), each data set weighing the same."""
    return [statistics.fmean(found[one][i] for one in sets) for i in (0, 1)]


def interval(values):
    """(mean, half the width of its 95 % interval by Student's t); the width is None for one."""
    if not values:
        return None
    if len(values) == 1:
        return values[0], None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), T95[len(values) - 1] * error


def tables(result):
    """Two tables in Markdown: the arms, and every data set."""
    lines = ["| arm | runs | AbsRel | change | δ1 | change |", "|---|---|---|---|---|---|"]
    for arm, text in ARMS.items():
        row = result["arms"][arm]
        if not row["runs"]:
            continue
        gain = row.get("gain", (None, None))
        cells = [f"{shown(row['mean'][i])} | {shown(gain[i], sign=True)}" for i in (0, 1)]
        lines.append(f"| {text} | {len(row['runs'])} | {' | '.join(cells)} |")
    if "teacher" in result:
        figures = result["teacher"]["mean"]
        lines.append(f"| *the teacher, same size* | | {figures[0]:.4f} | | {figures[1]:.4f} | |")
    arms = [arm for arm in ARMS if result["arms"][arm]["runs"]]
    lines += ["", f"| AbsRel | {' | '.join(arms)} | teacher |", "|---" * (len(arms) + 2) + "|"]
    for one in result["sets"]:
        cells = [shown(result["arms"][arm]["sets"][one][0]) for arm in arms]
        teacher = result.get("teacher", {}).get("sets", {}).get(one)
        cells.append(f"{teacher[0]:.4f}" if teacher else "")
        lines.append(f"| {one} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(pair, *, sign=False):
    """A mean with its interval."""
    if pair is None:
        return ""
    mean = f"{pair[0]:+.4f}" if sign else f"{pair[0]:.4f}"
    return mean if pair[1] is None else f"{mean} ± {pair[1]:.4f}"


def replace_tables(path, text):
    """Puts the tables between the page's two marks."""
    before, _, rest = path.read_text().partition("<!-- tables -->\n")
    _, mark, after = rest.partition("<!-- end of tables -->")
    if not mark:
        sys.exit(f"{path} has no <!-- tables --> … <!-- end of tables -->")
    path.write_text(f"{before}<!-- tables -->\n{text}\n{mark}{after}")


if __name__ == "__main__":
    main()
