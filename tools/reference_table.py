"""Evaluates weights on all real sample sets with ground truth; writes the table of docs.

    python tools/reference_table.py --weights=SPEC --data=DIR --out=DIR [--docs=docs/reference.md]

--data holds the sets that tools/prepare_samples.py prepared; those of dav's own sample are prepared
beside them. What stands finished in --out is not evaluated again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

OWN = [f"sample/{name}" for name in ("icl", "tum", "lab")]
INDOOR = [f"folder/{n}" for n in ("redkitchen_7scenes", "mosd", "icl_livingroom", "lab_slambook2")]
INDOOR += ["folder/uoc", "folder/nyu", "tum_rgbd", "sunrgbd", "middlebury/2014", "middlebury/2003"]
OUTDOOR = ["kitti_raw", "kitti_annotated", "kitti_tiny", "kitti2015", "ddad"]
MOST_IMAGES = 12  # of a set, evenly spaced: more frames of one video say little more
GROUPS = {  # out folder → (sets, cap in metres, images of a set at most; 0: all)
    "indoor": (INDOOR, 10, MOST_IMAGES),
    "outdoor": ([f"folder/{name}" for name in OUTDOOR], 80, MOST_IMAGES),
    "own": (OWN, 10, 0),
}
COLUMNS = {"abs_rel": "AbsRel", "abs_rel_disparity": "AbsRel in disparity", "delta1": "δ1"}
COLUMNS |= {"delta2": "δ2", "delta3": "δ3", "rmse": "RMSE, m", "log10": "log10", "silog": "SILog"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("weights", "data", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--docs", type=Path)
    arguments = parser.parse_args()
    for name in OWN:
        run("dav.data.prepare", name, f"--out={arguments.data}")
    evaluated = []
    for group, (names, cap_m, most) in GROUPS.items():
        out = Path(arguments.out) / group
        options = [f"--weights={arguments.weights}", f"--out={out}", f"--max_depth_m={cap_m}"]
        options += [f"--data={arguments.data}/{name}" for name in names] + ["--space=disparity"]
        run("dav.evaluate", *options, "--crop=none", f"--limit={most}")
        evaluated.append(json.loads((out / "eval.json").read_text()))
    text = page(evaluated)
    print(text)
    if arguments.docs:
        arguments.docs.write_text(text)


def run(module, *arguments):
    """Runs a command; its failure ends everything."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)])
    if done.returncode:
        sys.exit(done.returncode)


def page(evaluated):
    """The contents of every eval.json → one page."""
    head = ["data set", "split", "images", "cap, m", *COLUMNS.values()]
    lines = ["|".join(["", *head, ""]), "|" + "---|" * len(head)]
    for content in evaluated:
        protocols = {one["data"]: one["protocol"] for one in content["sets"]}
        for row in content["rows"]:
            lines.append("| " + " | ".join(cells(row, protocols[row["data"]])) + " |")
    first = evaluated[0]["sets"][0]["protocol"]
    (model, sha256), *_ = first["weights_sha256"].items()
    skipped = [(s["data"], one) for c in evaluated for s in c["sets"] for one in s["skipped"]]
    said = [f"- {data}, {one['id']}: left out, {one['reason']}" for data, one in skipped]
    table = "\n".join([*lines, *(["", *said] if said else [])])
    return (
        HEAD.format(model=model, sha256=sha256, most=MOST_IMAGES, **first) + f"\n{table}\n" + TAIL
    )


def cells(row, protocol):
    figures = [f"{row[name]:.3f}" if name in row else "–" for name in COLUMNS]
    cap_m = protocol["max_depth_m"]
    *_, total = protocol["chosen"].partition(",")[0].partition(" of ")
    images = f"{row['images']} of {total}" if total else str(row["images"])
    return [row["data"], row["split"], images, f"{cap_m:g}" if cap_m else "–", *figures]


HEAD = """# What the released weights reach on the samples

The reference that a student is compared with: `{model}` (SHA-256 of its parameters
{sha256:.16}…) on every real sample set with ground truth, as

    python tools/prepare_samples.py --samples=SAMPLES --out=OUT
    python tools/reference_table.py --weights=WEIGHTS --data=OUT/data --out=OUT/reference \\
        --docs=docs/reference.md

printed it. Alignment: {align}, per image. Network: short side {short_side_px} px, {dtype}. No
crop; a pixel counts if it is measured and lies strictly between {min_depth_m:g} m and the cap;
predictions are clipped there after alignment. Resized is the {resize}.
Figures are means over images of each image's own, at most {most} of a set, evenly spaced, but
all of dav's own sample. Where there is no cap, the truth is known up to scale: predictions are
clipped at the farthest valid depth of the image, and there is no RMSE.
[evaluation.md](evaluation.md) defines the rest.
"""

TAIL = """
These are small samples, not the benchmarks whose names they bear, and neighbouring frames of one
video are nearly one image: a difference of some thousandths says nothing. The weights are a copy
of Depth Anything V2 Small with one re-fitted tensor; figures are not to be compared with published
ones.
"""

if __name__ == "__main__":
    main()
