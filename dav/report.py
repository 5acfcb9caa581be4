"""The report: one self-contained page, and the same table as text for a terminal."""

import html
import importlib.resources
import itertools
import string

import cv2
import jax
import numpy as np

from dav import recipe_data, viz
from dav.files import read_lines, write_whole
from dav.step import strong_view

MAX_ERROR = 0.5  # relative depth error at the bright end of the error maps
CASES_SHOWN = 24
TASKS_SHOWN = 6


def write(config, paths, rows, cases):
    """Writes WORKDIR/report/index.html."""
    template = importlib.resources.files("dav").joinpath("report.html").read_text()
    page = string.Template(template).substitute(
        title=f"{config.recipe.capitalize()} {config.preset}",
        subtitle=subtitle(config),
        lead=html.escape(lead(config, rows)),
        protocol="Scale and shift are fitted per image, by least squares in disparity; depth is "
        f"clipped at {config.evaluation.max_depth_m:g} m.",
        table=table_html(rows),
        charts=charts(config, paths),
        gallery=gallery(config, cases),
        tasks=tasks(config, paths) if config.recipe == "student" else "",
    )
    folder = paths.workdir / "report"
    folder.mkdir(exist_ok=True)
    (folder / "overview.jpg").write_bytes(viz.encode_jpeg(overview(config, cases)))
    write_whole(folder / "index.html", page)


def subtitle(config):
    """Network, schedule and crop in one line."""
    mix = " + ".join(f"{size} {kind}" for kind, size in config.batch.items())
    return (
        f"{config.model.size} network · {config.steps} steps of {mix} images · crops of "
        f"{config.crop_px[1]}×{config.crop_px[0]} px · seed {config.seed}"
    )


def lead(config, rows):
    """The result in two sentences, read off the rows."""
    figures = {(row["model"], row["data"]): row["abs_rel"] for row in rows}
    names = list(dict.fromkeys(row["data"] for row in rows))
    seen = [row["data"] for row in rows if row["trained_on"]][-1:]
    sentences = []
    for name in [*seen, *(n for n in names if not _trained_on(rows, n))]:
        where = "held-out images of the sources it was trained on" if name in seen else name
        own, ramp = figures[config.recipe, name], figures["ramp", name]
        side = "below" if own < ramp else "above"
        sentences.append(
            f"On {where}, the {config.recipe}'s AbsRel is {own:.3f}: "
            f"{abs(1 - own / ramp):.0%} {side} the ramp's {ramp:.3f}."
        )
    return " ".join(sentences)


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
    body = []
    for model in models:
        line = f"<th>{html.escape(model)}</th>"
        for name in names:
            row = cells[model, name]
            best = min(cells[other, name]["abs_rel"] for other in models)
            mark = ' class="best"' if row["abs_rel"] == best else ""
            line += f"<td{mark}>{row['abs_rel']:.3f}<small>{100 * row['delta1']:.1f}</small></td>"
        body.append(f"<tr>{line}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def table_text(rows):
    """AbsRel and δ1 of every model on every set, for a terminal."""
    names, models = _axes(rows)
    cells = {(row["model"], row["data"]): row for row in rows}
    lines = ["AbsRel / δ1 %".ljust(14) + "".join(name.rjust(18) for name in names)]
    for model in models:
        figures = (
            f"{cells[model, name]['abs_rel']:.3f} / {100 * cells[model, name]['delta1']:.1f}"
            for name in names
        )
        lines.append(model.ljust(14) + "".join(figure.rjust(18) for figure in figures))
    return "\n".join(lines)


def charts(config, paths):
    """Loss curves of the recipe, and of its teacher."""
    runs = {config.recipe: paths.workdir}
    if config.recipe == "student":
        runs = {"teacher": paths.teacher, **runs}
    svgs = []
    for name, folder in runs.items():
        lines = [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]
        terms = [key for key in (lines[0] if lines else ()) if key.startswith("loss_")]
        curves = {
            term.removeprefix("loss_"): ([x["step"] for x in lines], [x[term] for x in lines])
            for term in terms
        }
        svgs.append(viz.line_chart(curves, title=f"{name}: loss by step"))
    return "".join(svgs)


def gallery(config, cases):
    """Photograph, truth, each network's disparity and the recipe's error, for every case."""
    shown = shown_models(cases)
    heads = column_heads(config, shown)
    columns = "five" if len(heads) == 5 else "four"
    cells = [f'<div class="head">{head}</div>' for head in heads]
    for case in in_turns(cases)[:CASES_SHOWN]:
        figures = " · ".join(f"{m} {case.scored[m].abs_rel:.3f}" for m in shown)
        cells.append(f'<div class="row"><b>{html.escape(case.id)}</b> AbsRel {figures}</div>')
        cells += [
            viz.image_tag(image, case.id) for image in case_images(case, shown, config.recipe)
        ]
    return f'<div class="gallery {columns}">{"".join(cells)}</div>'


def in_turns(cases):
    """The cases of all sources in turns, so that a page does not begin with twenty alike."""
    by_source = {}
    for case in cases:
        by_source.setdefault(case.data, []).append(case)
    rounds = itertools.zip_longest(*by_source.values())
    return [case for cases in rounds for case in cases if case is not None]


def shown_models(cases):
    """The trained networks, teacher first."""
    return [model for model in ("teacher", "student") if model in cases[0].scored]


def column_heads(config, models):
    """What the columns of the gallery show."""
    return ["photograph", "measured", *models, f"error of the {config.recipe}"]


def case_images(case, models, judged):
    """The pictures of one case, uint8 RGB, all disparity in the truth's colour scale."""
    disparity = np.where(case.valid, 1 / np.where(case.valid, case.depth_m, 1), 0)
    low, high = viz.disparity_range(disparity, case.valid)
    images = [case.image, viz.colorize(disparity, low, high, valid=case.valid)]
    images += [viz.colorize(1 / case.scored[m].aligned_m, low, high) for m in models]
    truth = np.where(case.valid, case.depth_m, 1)
    error = np.abs(case.scored[judged].aligned_m - truth) / truth
    images.append(
        viz.colorize(error, 0, MAX_ERROR, valid=case.valid, colormap=cv2.COLORMAP_VIRIDIS)
    )
    return images


def overview(config, cases):
    """A few cases of different sources as one picture, uint8 RGB: the columns of the gallery."""
    models = shown_models(cases)
    names = dict.fromkeys(case.data for case in cases)
    groups = [[case for case in cases if case.data == name] for name in names]
    chosen = [group[i] for group in groups for i in sorted({0, len(group) // 2})]
    size = chosen[0].image.shape[1::-1]
    rows = [
        np.concatenate(
            [cv2.resize(image, size) for image in case_images(case, models, config.recipe)], axis=1
        )
        for case in chosen
    ]
    head = np.full((34, rows[0].shape[1], 3), 255, np.uint8)
    for index, text in enumerate(column_heads(config, models)):
        place = (size[0] * index + 8, 23)
        cv2.putText(head, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([head, *rows])


def tasks(config, paths):
    """A few inputs of the student's first step, and the pseudo-labels it had to match."""
    batch = recipe_data.make_batches(config, paths)[0]["unlabelled"]
    view = jax.jit(
        lambda images: strong_view(images, config.seed, 0, apply=config.objective.perturb)
    )
    inputs, masks = jax.device_get(view(batch["image"]))
    heads = ("photograph", "what the student saw", "what the teacher said", "the student's task")
    cells = [f'<div class="head">{head}</div>' for head in heads]
    order = np.argsort(~masks.any(axis=(1, 2)), kind="stable")[:TASKS_SHOWN]
    for index in order:
        own, other = batch["disparity"][index], batch["disparity"][index - 1]
        mask = masks[index]
        task = np.where(mask, _scaled(other, mask), _scaled(own, ~mask))
        pictures = (
            batch["image"][index],
            (inputs[index] * 255).astype(np.uint8),
            viz.colorize(_scaled(own, np.ones_like(mask)), 0, 1),
            _outlined(viz.colorize(task, 0, 1), mask),
        )
        cells += [viz.image_tag(picture) for picture in pictures]
    return (
        "<h2>What the student was asked</h2>"
        '<p class="soft">Photographs of its first step: jittered in colour, blurred, and with a '
        "piece of another one cut in. Inside and outside of the cut, each normalised on its own, "
        "it had to match what the teacher saw in the clean photographs.</p>"
        f'<div class="gallery four">{"".join(cells)}</div>'
    )


def _scaled(disparity, mask):
    """Disparity to 0…1 over the pixels of a region."""
    if not mask.any():
        return disparity
    low, high = viz.disparity_range(disparity, mask)
    return (disparity - low) / max(high - low, 1e-9)


def _outlined(image, mask):
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    return cv2.drawContours(image, contours, -1, (255, 255, 255), 1)


def _axes(rows):
    return (list(dict.fromkeys(row[key] for row in rows)) for key in ("data", "model"))


def _trained_on(rows, name):
    return next(row["trained_on"] for row in rows if row["data"] == name)
