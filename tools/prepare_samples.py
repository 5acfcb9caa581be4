"""Prepares every set of real samples with the commands that users run, and makes their pages.

    python tools/prepare_samples.py --samples=DIR --out=DIR [--docs=docs/samples.md]

DIR/manifest.jsonl lists image and depth pairs by folder. Where dav has a builder for a sample's
source and the sample keeps its layout, that builder is used; else `folder`, with a dataset.yaml
and a table written from the manifest. Nothing is written below --samples.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

UNITS = {"mm (/1000)": ("mm", 1), "m (/5000)": ("m", 5000), "m (/256), 0 invalid": ("m", 256)}
UNITS |= {"m": ("m", 1), "px disparity (/256)": ("up_to_scale", 1)}
INVALID = {"redkitchen_7scenes": [65535]}
NOT_AS_TABLES = {"sunrgbd", "tum_fr1_desk", "middlebury2014", "middlebury2003", "other_formats"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--docs", type=Path)
    arguments = parser.parse_args()
    samples, raw, out = arguments.samples.absolute(), arguments.out / "raw", arguments.out / "data"
    lines = []
    for name, folder in [*own_layouts(samples, raw), *tables(samples, raw), *photographs(samples)]:
        done = run("dav.data.prepare", name, f"--raw={folder}", f"--out={out}")
        lines.append(done.strip().splitlines()[-1].replace(str(out), "DATA"))
        print(lines[-1], flush=True)
        page = run("dav.data.inspect", out / name, f"--out={arguments.out / 'pages' / flat(name)}")
        print(" ", page.strip().splitlines()[-1], flush=True)
    if arguments.docs:
        arguments.docs.write_text("\n".join(lines) + "\n")


def run(module, *arguments):
    """A command's output; its failure ends everything."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def flat(name):
    return name.replace("/", "_") + ".html"


def own_layouts(samples, raw):
    """(data set, raw folder) of the samples that dav's own builders can read."""
    yield "middlebury/2014", samples / "middlebury2014"
    yield "middlebury/2003", samples / "middlebury2003"
    yield "tum_rgbd", tum(samples / "tum_fr1_desk", raw / "tum_rgbd")
    yield "sunrgbd", sun(samples / "sunrgbd" / "img_0063", raw / "sunrgbd")


def tum(source, raw):
    """The lists that this sample lacks, beside links to its folders."""
    sequence = raw / "rgbd_dataset_freiburg1_desk"
    for kind in ("rgb", "depth"):
        link(source / kind, sequence / kind)
        names = sorted(path.name for path in (source / kind).glob("*.png"))
        lines = [f"{name.removesuffix('.png')} {kind}/{name}" for name in names]
        (sequence / f"{kind}.txt").write_text("# timestamp filename\n" + "\n".join(lines) + "\n")
    return raw


def sun(source, raw):
    """The scene in its place, and a list that names it alone."""
    from scipy.io import savemat

    place = "kv1/NYUdata/img_0063"
    link(source, raw / "SUNRGBD" / place)
    lists = raw / "SUNRGBDtoolbox" / "traintestSUNRGBD"
    lists.mkdir(parents=True, exist_ok=True)
    named = np.array([f"/n/fs/sun3d/data/SUNRGBD/{place}"], dtype=object)
    nobody = np.zeros((1, 0), dtype=object)
    savemat(lists / "allsplit.mat", {"alltest": named, "alltrain": nobody})
    return raw


def tables(samples, raw):
    """(folder/NAME, raw folder) of the other pairs of the manifest, one a source."""
    pairs = {}
    for line in (samples / "manifest.jsonl").read_text().splitlines():
        pair = json.loads(line)
        source = pair["rgb"].partition("/")[0]
        is_map = not pair["rgb"].endswith(".npy")
        if source not in NOT_AS_TABLES and is_map:
            pairs.setdefault(source, []).append(pair)
    for source, group in pairs.items():
        folder = raw / source
        link(samples / source, folder / source)
        unit, scale = UNITS[group[0]["scale"]]
        kind = "disparity" if group[0]["kind"] == "disparity" else "depth"
        with open(folder / "pairs.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", kind])
            table.writerows([pair["rgb"], pair["depth"]] for pair in group)
        lines = ["table: pairs.csv", f"invalid: {INVALID.get(source, [])}"]
        lines += [f"unit: {unit}", f"scale: {scale}"] if kind == "depth" else []
        (folder / "dataset.yaml").write_text("\n".join(lines) + "\n")
        yield f"folder/{source}", folder


def photographs(samples):
    """(folder/NAME, folder) of the photographs without depth."""
    for folder in [*sorted((samples / "photos").iterdir()), samples / "official_demo"]:
        yield f"folder/{folder.name}", folder


def link(target, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        os.symlink(target, place)


if __name__ == "__main__":
    main()
