"""The report of a training: one self-contained page about a teacher, a student, a fine-tuning."""

import html
import importlib.resources
import itertools
import math
import string

import cv2
import numpy as np

from dav import folders, report_tasks, viz
from dav.errors import DavError
from dav.evaluation import pictures
from dav.evaluation_set import is_pairs, number
from dav.files import write_whole
from dav.runtime.telemetry import read_metrics

CASES_SHOWN = 24
COLUMNS = {4: "four", 5: "five", 6: "six"}
BEFORE = "Before: the weights that training began with."
# What of metrics.jsonl is drawn: keys that begin so, and what they are.
CHARTS = (("loss_", "loss"), ("lr_", "learning rate"), ("grad_norm", "gradient norm"))


def write(config, paths, rows, results):
    """Writes WORKDIR/report/index.html and overview.jpg: `rows` are those of eval.json, `results`
    a SetResult of each data set, whose samples are shown."""
    shown = [result for result in results if not is_pairs(result)]
    template = importlib.resources.files("dav").joinpath("report.html").read_text()
    page = string.Template(template).substitute(
        title=f"{config.recipe.capitalize()} {config.preset}",
        subtitle=subtitle(config),
        lead=html.escape(lead(config, rows)),
        protocol=html.escape(protocol(results)),
        before=BEFORE if any(row["model"] == "before" for row in rows) else "",
        table=table_html(rows),
        charts=charts(config, paths),
        watched=watched(paths),
        disparity_scale=viz.scale_tag(viz.COLORMAPS["inferno"]),
        error_scale=viz.scale_tag(viz.COLORMAPS["viridis"]),
        most_error=f"{100 * pictures.MAX_ERROR:.0f}",
        gallery=gallery(config, shown),
        tasks=report_tasks.section(config, paths) if folders.uses_labels(config) else "",
    )
    folder = paths.workdir / "report"
    folder.mkdir(exist_ok=True)
    if shown:
        write_whole(folder / "overview.jpg", viz.encode_jpeg(overview(config, shown)))
    write_whole(folder / "index.html", page)


def subtitle(config):
    """Network, schedule and crop in one line."""
    mix = " + ".join(f"{size} {kind}" for kind, size in config.batch.items())
    return (
        f"{config.model.size} network · {config.steps} steps of {mix} images · crops of "
        f"{config.crop_px[1]}×{config.crop_px[0]} px · seed {config.seed}"
    )


def lead(config, rows):
    """The result in a sentence a data set, read off the rows: against what training began with,
    where it had weights, else the ramp."""
    cells = {(row["model"], row["data"]): row for row in rows}
    names = list(dict.fromkeys(row["data"] for row in rows))
    seen = [row["data"] for row in rows if row["trained_on"]][-1:]
    sentences = []
    for name in [*seen, *(n for n in names if not _trained_on(rows, n))]:
        where = "held-out images of the sources it was trained on" if name in seen else name
        sentences.append(f"On {where}, {_against(config, name, cells)}.")
    return " ".join(sentences)


def _against(config, name, cells):
    own = cells[config.recipe, name]
    reference = "before" if ("before", name) in cells else "ramp"
    other = cells[reference, name]
    if "accuracy" in own:
        figures = f"orders {own['accuracy']:.1%} of pairs rightly"
        its = f"{other['accuracy']:.1%}"
        then = f"before it was {its}" if reference == "before" else f"the ramp {its}"
        return f"the {config.recipe} {figures}, {then}"
    own, other = own["abs_rel"], other["abs_rel"]
    share = f"{abs(1 - own / other):.0%} {'below' if own < other else 'above'}"
    whose = "that before it," if reference == "before" else "the ramp's"
    return f"the {config.recipe}'s AbsRel is {own:.3f}: {share} {whose} {other:.3f}"


def protocol(results):
    """What alignment and caps the figures of depth are under, in a sentence."""
    known = [result for result in results if not is_pairs(result)]
    caps = {result.data: result.protocol.get("max_depth_m") for result in known}
    crops = {result.data: result.protocol.get("crop", "none") for result in known}
    said = "Scale and shift are fitted per image, by least squares in disparity"
    if any(caps.values()):
        said += f"; depth is clipped at {_each(caps, '{:g} m')}"
    if set(crops.values()) - {"none"}:
        said += f"; crop: {_each(crops, '{}')}"
    return said + "." if known else ""


def _each(values, form):
    """One value for all sets, or each set's own."""
    values = {name: form.format(value) for name, value in values.items() if value is not None}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({name})" for name, value in values.items())


def table_html(rows):
    """Models down, data sets across; the best figure of each column stands out."""
    names, models = _axes(rows)
    cells = {(row["model"], row["data"]): row for row in rows}
    counts = {row["data"]: row["images"] for row in rows}
    head = "".join(
        f"<th>{html.escape(name)}<br>{'trained on' if _trained_on(rows, name) else 'never seen'}, "
        f"{counts[name]} images</th>"
        for name in names
    )
    body = "".join(
        f"<tr><th>{html.escape(model)}</th>"
        f"{''.join(_cell(model, name, models, cells) for name in names)}</tr>"
        for model in models
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(model, name, models, cells):
    row, others = cells[model, name], [cells[other, name] for other in models]
    if "accuracy" in row:
        is_best = row["accuracy"] == max(other["accuracy"] for other in others)
        text = f"{number('accuracy', row['accuracy'])}<small>% of pairs</small>"
    else:
        is_best = row["abs_rel"] == min(other["abs_rel"] for other in others)
        delta1 = number("delta1", row["delta1"])
        text = f"{number('abs_rel', row['abs_rel'])}<small>{delta1}</small>"
    mark = ' class="best"' if is_best else ""
    return f"<td{mark}>{text}</td>"


def charts(config, paths):
    """Curves of the recipe, and of its teacher, from metrics.jsonl."""
    runs = {config.recipe: paths.workdir}
    if folders.trains_teacher(config):
        runs = {"teacher": paths.teacher, **runs}
    rows = []
    for name, folder in runs.items():
        lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]
        titles = {prefix: f"{name}: {what} by step" for prefix, what in CHARTS}
        svgs = (viz.line_chart(curves_of(lines, p), title=title) for p, title in titles.items())
        rows.append(f'<div class="charts">{"".join(svgs)}</div>')
    return "".join(rows)


def curves_of(lines, prefix):
    """Keys that begin with `prefix` as {name: (steps, values)}, without what is not finite."""
    keys = dict.fromkeys(key for line in lines for key in line if key.startswith(prefix))
    curves = {}
    for key in keys:
        points = [
            (line["step"], line[key])
            for line in lines
            if line.get(key) is not None and math.isfinite(line[key])
        ]
        curves[key.removeprefix(prefix).strip("_") or "all"] = tuple(zip(*points, strict=True))
    return {name: points for name, points in curves.items() if points}


def watched(paths):
    """The newest picture that the training made of itself."""
    found = {int(path.stem): path for path in paths.workdir.glob("pictures/*.jpg")}
    if not found:
        return ""
    step = max(found)
    content = found[step].read_bytes()
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DavError(f"{found[step]} is damaged; delete it, and evaluate again")
    return (
        '<div class="watched"><p class="soft">What it was shown, what it had to match and what it '
        f"answered in step {step:,}:</p>{viz.jpeg_tag(content, image.shape, f'step {step}')}</div>"
    )


def gallery(config, results):
    """Photograph, truth, each network's disparity and the recipe's error, for every case."""
    cases = in_turns(results)[:CASES_SHOWN]
    if not cases:
        return ""
    shown = shown_models(config, cases)
    heads = column_heads(config, shown)
    cells = [f'<div class="head">{head}</div>' for head in heads]
    for case in cases:
        figures = " · ".join(f"{m} {number('abs_rel', case.figures[m]['abs_rel'])}" for m in shown)
        cells.append(f'<div class="row"><b>{html.escape(case.id)}</b> AbsRel {figures}</div>')
        cells += [
            viz.image_tag(image, case.id) for image in case_images(case, shown, config.recipe)
        ]
    return (
        f'<div class="wide"><div class="gallery {COLUMNS[len(heads)]}">{"".join(cells)}</div></div>'
    )


def in_turns(results):
    """The samples of all sets in turns, so that a page does not begin with twenty alike."""
    rounds = itertools.zip_longest(*(result.samples for result in results))
    return [case for cases in rounds for case in cases if case is not None]


def shown_models(config, cases):
    """The networks, the recipe's own last."""
    others = [model for model in ("before", "teacher") if model != config.recipe]
    return [model for model in (*others, config.recipe) if model in cases[0].figures]


def column_heads(config, models):
    """What the columns of the gallery show."""
    return ["photograph", "measured", *models, f"error of the {config.recipe}"]


def case_images(case, models, judged):
    """The pictures of one case, uint8 RGB, all disparity in the truth's colour scale."""
    aligned = case.aligned
    return [case.image, case.truth, *(aligned[m] for m in models), case.error[judged]]


def overview(config, results):
    """A few cases of different sets as one picture, uint8 RGB: the columns of the gallery."""
    groups = [result.samples for result in results if result.samples]
    chosen = [group[i] for group in groups for i in sorted({0, len(group) // 2})]
    models = shown_models(config, chosen)
    width = chosen[0].image.shape[1]
    rows = []
    for case in chosen:
        size = width, round(case.image.shape[0] * width / case.image.shape[1])
        row = [cv2.resize(image, size) for image in case_images(case, models, config.recipe)]
        rows.append(np.concatenate(row, axis=1))
    head = np.full((34, rows[0].shape[1], 3), 255, np.uint8)
    for index, text in enumerate(column_heads(config, models)):
        place = (width * index + 8, 23)
        cv2.putText(head, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([head, *rows])


def _axes(rows):
    return (list(dict.fromkeys(row[key] for row in rows)) for key in ("data", "model"))


def _trained_on(rows, name):
    return next(row["trained_on"] for row in rows if row["data"] == name)
