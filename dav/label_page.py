"""The page of a labelling: one self-contained file with figures, samples and outliers."""

import html
import importlib.resources
import itertools
import os
import statistics
import string
from dataclasses import dataclass

import cv2
import numpy as np

from dav import folders, viz
from dav.data import label_shards, labels, sources
from dav.data.examples import decode_example
from dav.files import write_whole
from dav.label_summary import OUTLIERS

SAMPLES, OUTLIERS_OF_A_KIND, LISTED = 18, 3, 50
CHARTED = 8  # shards at least, to be worth a curve
TILE_PX = 280  # longer side of a picture
COLORMAP = viz.COLORMAPS["spectral"]


@dataclass(frozen=True)
class LabelledSet:
    """What is known of one data set's labels."""

    name: str
    counts: dict  # {image shard: records}
    lines: dict  # manifest lines by shard name
    damaged: dict  # {shard name: why it could not be read}
    folder: object
    features: object

    @property
    def images(self):
        """Labelled images."""
        return sum(line["records"] - len(line["failed"]) for line in self.lines.values())

    @property
    def failed(self):
        """[(shard, failure)] of the images without a label."""
        return [(name, f) for name, line in self.lines.items() for f in line["failed"]]


def is_written(config, paths):
    """Whether WORKDIR/label.html is there, and no older than the manifests that it tells of."""
    page = paths.workdir / "label.html"
    names = config.data.unlabelled
    manifests = [folders.label_folder(paths, name) / label_shards.MERGED for name in names]
    if not all(path.exists() for path in (page, *manifests)):
        return False
    return all(path.stat().st_mtime_ns <= page.stat().st_mtime_ns for path in manifests)


def write(config, paths):
    """Writes WORKDIR/label.html, which other processes may do at the same time."""
    sets = [read_set(config, paths, name) for name in config.data.unlabelled]
    template = importlib.resources.files("dav").joinpath("label.html").read_text()
    page = string.Template(template).substitute(
        title=f"Labels of {html.escape(config.recipe)} {html.escape(config.preset)}",
        subtitle=html.escape(subtitle(config, paths, sets)),
        lead=html.escape(lead(sets)),
        warning=warning(sets),
        table=table(sets),
        charts=charts(sets),
        scale=viz.scale_tag(COLORMAP),
        samples=gallery(pick_samples(sets)),
        outliers=gallery(pick_outliers(sets)) or "<p>No map stands out.</p>",
        failures=failures(sets),
    )
    own = paths.workdir / f"label.html.{os.uname().nodename}-{os.getpid()}"
    write_whole(own, page)
    os.replace(own, paths.workdir / "label.html")


def read_set(config, paths, name):
    """The LabelledSet of one data set."""
    folder = folders.label_folder(paths, name)
    return LabelledSet(
        name=name,
        counts=sources.shard_counts(paths.data, name, "train"),
        lines=label_shards.finished_shards(folder, folders.label_origin(config, paths)),
        damaged=label_shards.damaged_shards(folder),
        folder=folder,
        features=sources.read_features(paths.data, name, "train"),
    )


def subtitle(config, paths, sets):
    """Who labelled, how, and how much of it there is."""
    size = sum(line["bytes"] for one in sets for line in one.lines.values())
    each = size / max(1, sum(one.images for one in sets))
    whole = f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
    return f"{folders.label_origin(config, paths)} · {whole}, {each / 1e3:.1f} kB a label"


def lead(sets):
    """What is there and what it took, in two sentences."""
    whole = sum(sum(one.counts.values()) for one in sets)
    done = sum(one.images for one in sets)
    measured = [line["measured"] for one in sets for line in one.lines.values()]
    hours = sum(m["seconds"] * m["devices"] for m in measured) / 3600
    kinds = ", ".join(sorted({m["kind"] for m in measured}))
    told = f"{done:,} of {whole:,} images are labelled."
    return f"{told} It took {hours:,.3g} device-hours ({kinds})." if measured else told


def warning(sets):
    """What is missing, if anything is."""
    failed = sum(len(one.failed) for one in sets)
    damaged = sum(len(one.damaged) for one in sets)
    missing = sum(len(one.counts) - len(one.lines) for one in sets)
    parts = []
    if failed:
        parts.append(f"{_count(failed, 'image')} could not be labelled; training takes others.")
    if missing:
        parts.append(f"{_count(missing, 'shard')} without labels.")
    if damaged:
        parts.append(
            f"The images of {_count(damaged, 'shard')} cannot be read: --job=prepare rebuilds "
            "them, then --job=label continues."
        )
    return f'<div class="warning">{" ".join(parts)}</div>' if parts else ""


def _count(number, noun):
    return f"{number:,} {noun}{'s' * (number != 1)}"


def table(sets):
    """A row a data set."""
    heads = ("", "images", "no label", "shards", "range", "median", "zeros", "constant maps")
    heads += ("images/s",)
    rows = "".join(f"<tr><th>{html.escape(one.name)}</th>{_cells(one)}</tr>" for one in sets)
    head = "".join(f"<th>{text}</th>" for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(one):
    known = [line["statistics"] for line in one.lines.values()]
    known = [found for found in known if found["median"] is not None]
    seconds = sum(
        line["measured"]["seconds"] * line["measured"]["devices"] for line in one.lines.values()
    )
    cells = [f"{one.images:,}", f"{len(one.failed):,}", f"{len(one.lines):,}/{len(one.counts):,}"]
    if known:
        low, high = min(s["low"] for s in known), max(s["high"] for s in known)
        cells += [f"{low:.3g} … {high:.3g}", f"{statistics.median(s['median'] for s in known):.3g}"]
        cells += [f"{100 * statistics.fmean(s['zeros'] for s in known):.1f} %"]
        cells += [f"{sum(s['constant'] for s in known):,}"]
        cells += [f"{one.images / seconds:.1f}" if seconds else ""]
    return "".join(f"<td>{cell}</td>" for cell in cells)


def charts(sets):
    """Speed and medians by shard: a shard that is unlike the others stands out."""
    lines = [line for one in sets for line in one.lines.values() if line["records"]]
    if len(lines) < CHARTED:
        return ""
    numbers = list(range(len(lines)))
    speeds = [line["records"] / max(line["measured"]["seconds"], 1e-3) for line in lines]
    medians = [line["statistics"]["median"] or 0.0 for line in lines]
    return viz.line_chart(
        {"images/s": (numbers, speeds)}, title="speed of a process, by shard"
    ) + viz.line_chart({"median": (numbers, medians)}, title="median disparity, by shard")


def pick_samples(sets):
    """[(set, shard, index, what to say)], evenly from all shards."""
    shards = [(one, name) for one in sets for name, line in one.lines.items() if line["records"]]
    chosen = np.linspace(0, len(shards) - 1, min(SAMPLES, len(shards))).astype(int)
    each = -(-SAMPLES // max(len(chosen), 1))
    picked = []
    for one, name in (shards[place] for place in chosen):
        records = one.lines[name]["records"]
        without = {failure["index"] for failure in one.lines[name]["failed"]}
        with_label = [index for index in range(records) if index not in without]
        places = np.linspace(0, len(with_label) - 1, min(each, len(with_label))).astype(int)
        picked += [(one, name, with_label[place], "") for place in dict.fromkeys(places.tolist())]
    return picked[:SAMPLES]


def pick_outliers(sets):
    """The same of the maps that stand out most, each once, some of each kind."""
    found = {}
    for one in sets:
        for name, line in one.lines.items():
            for outlier in line["outliers"]:
                found.setdefault(outlier["kind"], []).append((one, name, outlier))
    picked, seen = [], set()
    for kind, _ in OUTLIERS:
        entries = sorted(found.get(kind, []), key=lambda entry: -entry[2]["value"])
        fresh = [e for e in entries if (e[0].name, e[1], e[2]["index"]) not in seen]
        for one, name, outlier in itertools.islice(fresh, OUTLIERS_OF_A_KIND):
            seen.add((one.name, name, outlier["index"]))
            picked.append((one, name, outlier["index"], _said(kind, outlier["value"])))
    return picked


def _said(kind, value):
    figures = {"constant": "", "most zeros": f" ({100 * value:.0f} %)"}
    return kind + figures.get(kind, f" ({value:.3g})")


def gallery(picked):
    """Photograph and label of each, in colours."""
    return "".join(_figure(*entry) for entry in picked)


def _figure(one, name, index, said):
    path = next(path for path in one.counts if path.name == name)
    example = decode_example(sources.open_shard(path, one.counts[path], one.features)[index])
    disparity = labels.decode_label(label_shards.read_record(one.folder, name, index))["disparity"]
    low, high = float(disparity.min()), float(disparity.max())
    colors = viz.colorize(disparity, low, high, colormap=COLORMAP)
    size = disparity.shape[::-1]
    images = [cv2.resize(example["image"], size, interpolation=cv2.INTER_AREA), colors]
    shown = "".join(viz.image_tag(_shrink(image), example["id"], quality=80) for image in images)
    caption = f"<b>{html.escape(said)}</b> " * bool(said) + html.escape(
        f"{one.name} {example['id']}: {low:.3g} … {high:.3g}"
    )
    return f'<figure><div class="pair">{shown}</div><figcaption>{caption}</figcaption></figure>'


def _shrink(image):
    scale = min(1.0, TILE_PX / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def failures(sets):
    """Images without a label and shards that could not be read, with reasons."""
    rows = [
        (f"{one.name} {name}", "the whole shard", why)
        for one in sets
        for name, why in one.damaged.items()
    ]
    rows += [
        (f"{one.name} {name}", f"{f['index']}: {f['id']}", f["reason"])
        for one in sets
        for name, f in one.failed
    ]
    if not rows:
        return ""
    body = "".join(
        "<tr>" + "".join(f'<td class="text">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows[:LISTED]
    )
    more = f'<p class="soft">and {len(rows) - LISTED:,} more</p>' * (len(rows) > LISTED)
    head = "<th>shard</th><th>record</th><th>why</th>"
    return (
        f'<h2>Without labels</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )
