"""One data set's part of the page that dav.evaluation_page writes."""

import html
import math

import cv2

from dav import viz
from dav.evaluation import published

PICTURE_PX = 320  # of the longer side
JPEG_QUALITY = 80
SKIPPED_SHOWN = 20
PERCENT = ("delta1", "delta2", "delta3", "accuracy")  # shares, shown as such
LABELS = {
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel, m",
    "delta1": "δ1, %",
    "delta2": "δ2, %",
    "delta3": "δ3, %",
    "rmse": "RMSE, m",
    "rmse_log": "RMSE log",
    "log10": "log10",
    "silog": "SILog",
    "abs_rel_disparity": "AbsRel in disparity",
    "sq_rel_disparity": "SqRel in disparity",
    "rmse_disparity": "RMSE in disparity",
    "accuracy": "all pairs",
}
DEPTH_HEADS = ("photograph", "measured", "predicted, aligned", "error")
PAIR_HEADS = ("photograph", "pairs", "predicted", "pairs ordered wrongly")


def is_pairs(result):
    """Whether a result is of pairs of points, not of depth."""
    return any("accuracy" in figures for figures in result.figures.values())


def section(anchor, result):
    """The HTML of one SetResult."""
    count = f"{result.images:,} image{'s' * (result.images != 1)}"
    parts = [
        f'<h2 id="{anchor}">{html.escape(result.data)}</h2>',
        f'<p class="soft">{html.escape(result.split)} split · {count}</p>',
        pair_table(result) if is_pairs(result) else depth_table(result),
        _paragraph(comparison(result)[1]),
        _protocol(result.protocol),
        _skipped(result.skipped),
        _legend(result),
        *(_extremes(result, model, is_open=not i) for i, model in enumerate(result.figures)),
    ]
    return f"<section>{''.join(parts)}</section>"


def comparison(result):
    """(published rows that a result may be compared with, a sentence on how far)."""
    benchmark = published.BENCHMARKS.get(result.data)
    if benchmark is None:
        return (), published.OTHER_EDITIONS.get(result.data, "")
    if result.split != "test" or not benchmark.is_whole(result.images):
        return (), (
            f"Not comparable with published figures: those are over {benchmark.images:,} images of "
            f"{benchmark.name}, these over {result.images:,} of its {result.split} split."
        )
    return published.published_for(result.data), benchmark.doubt


def depth_table(result):
    """AbsRel and δ1, ours and the published ones, and all metrics on demand."""
    rows, _ = comparison(result)
    head = '<th></th><th>AbsRel</th><th>δ1, %</th><th class="text">from</th>'
    best = min((f["abs_rel"] for f in result.figures.values()), default=None)
    ours = [
        _row(model, figures, ("abs_rel", "delta1"), "this evaluation", figures["abs_rel"] == best)
        for model, figures in result.figures.items()
    ]
    table = _table(head, ours, [_published_row(row, ("abs_rel", "delta1")) for row in rows])
    metrics = [name for name in LABELS if any(name in f for f in result.figures.values())]
    head = "<th></th>" + "".join(f"<th>{html.escape(LABELS[name])}</th>" for name in metrics)
    every = [_row(model, figures, metrics) for model, figures in result.figures.items()]
    return f"{table}<details><summary>All metrics</summary>{_table(head, every)}</details>"


def pair_table(result):
    """The share of pairs ordered rightly, of all and of each scene."""
    rows, _ = comparison(result)
    seen = dict.fromkeys(name for figures in result.figures.values() for name in figures)
    metrics = ["accuracy", *(name for name in seen if name.startswith("accuracy "))]
    names = (name.removeprefix("accuracy ").replace("_", " ") for name in metrics[1:])
    head = "<th></th>" + "".join(f"<th>{html.escape(name)}</th>" for name in ("all pairs", *names))
    best = max((f["accuracy"] for f in result.figures.values()), default=None)
    ours = [
        _row(model, figures, metrics, "this evaluation", figures["accuracy"] == best)
        for model, figures in result.figures.items()
    ]
    theirs = [_published_row(row, metrics) for row in rows]
    said = "Pairs of points ordered rightly, per cent; over all pairs, not over scenes."
    table = _table(f'{head}<th class="text">from</th>', ours, theirs)
    return f'<p class="soft">{said}</p>{table}'


def _table(head, ours, theirs=()):
    groups = f"<tbody>{''.join(ours)}</tbody>"
    if theirs:
        groups += f'<tbody class="published">{"".join(theirs)}</tbody>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{groups}</table></div>'


def _row(model, figures, metrics, source="", is_best=False):
    mark = ' class="best"' if is_best else ""
    cells = f"<th>{html.escape(model)}</th>"
    for index, name in enumerate(metrics):
        cells += f"<td{mark if index == 0 else ''}>{number(name, figures.get(name))}</td>"
    if source:
        cells += f'<td class="text">{html.escape(source)}</td>'
    return f"<tr>{cells}</tr>"


def _published_row(row, metrics):
    kind = "published" if row.is_paper else "not the paper's"
    source = f"{kind}: {row.source}" + (f"; {row.remark}" if row.remark else "")
    return _row(row.model, row.figures, metrics, source)


def number(metric, value):
    """A figure as a table shows it: shares of pixels or pairs in per cent, the rest as they are."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric.partition(" ")[0] in PERCENT:
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def _paragraph(text):
    return f'<p class="remark">{html.escape(text)}</p>' if text else ""


def _protocol(protocol):
    if not protocol:
        return ""
    lines = (
        f"<dt>{html.escape(str(name).replace('_', ' '))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in protocol.items()
    )
    return f"<h3>Protocol</h3><dl>{''.join(lines)}</dl>"


def _skipped(skipped):
    """Images left out, by reason."""
    reasons = {}
    for name, reason in skipped:
        reasons.setdefault(str(reason), []).append(str(name))
    lines = []
    for reason, names in reasons.items():
        more = f" and {len(names) - SKIPPED_SHOWN:,} more" if len(names) > SKIPPED_SHOWN else ""
        shown = ", ".join(names[:SKIPPED_SHOWN])
        lines.append(f"<li>{len(names):,}: {html.escape(f'{reason}: {shown}{more}')}</li>")
    return f'<h3>Images left out</h3><ul class="soft">{"".join(lines)}</ul>' if lines else ""


def _legend(result):
    if not any(result.best.values()) and not any(result.worst.values()):
        return ""
    near = f"far {viz.scale_tag(viz.COLORMAPS['inferno'])} near"
    if is_pairs(result):
        said = f"Of a pair, green is the closer point. Predicted disparity: {near}."
    else:
        error = f"0 {viz.scale_tag(viz.COLORMAPS['viridis'])} 50 % and more"
        said = (
            f"Disparity, one colour scale a row: {near}; grey where nothing was measured. "
            f"Relative depth error: {error}."
        )
    return f'<h3>Best and worst images</h3><p class="soft">{said}</p>'


def _extremes(result, model, *, is_open):
    """The best and worst images of one model."""
    groups = [
        f"<h4>{name}</h4>{cases(chosen, model, is_pairs(result))}"
        for name, chosen in (
            ("Best", result.best.get(model, ())),
            ("Worst", result.worst.get(model, ())),
        )
        if chosen
    ]
    if not groups:
        return ""
    opened = " open" if is_open else ""
    return f"<details{opened}><summary>{html.escape(model)}</summary>{''.join(groups)}</details>"


def cases(shown, model, of_pairs):
    """Pictures of Shown images as one model sees them, with their figures."""
    heads = PAIR_HEADS if of_pairs else DEPTH_HEADS
    parts = ['<div class="heads">' + "".join(f"<span>{head}</span>" for head in heads) + "</div>"]
    for place, one in enumerate(shown, 1):
        pictures = (one.image, one.truth, one.aligned[model], one.error[model])
        tags = "".join(
            f"<figure>{viz.image_tag(shrunk(picture), one.id, quality=JPEG_QUALITY)}"
            f"<figcaption>{head}</figcaption></figure>"
            for head, picture in zip(heads, pictures, strict=True)
        )
        said = caption(one.figures[model])
        parts.append(
            f'<div class="case"><p>{place}. <b>{html.escape(one.id)}</b> {said}</p>'
            f'<div class="pictures">{tags}</div></div>'
        )
    return "".join(parts)


def caption(figures):
    """The figures of one image in a line."""
    if "accuracy" in figures:
        return f"{number('accuracy', figures['accuracy'])} % of its pairs"
    parts = [f"AbsRel {number('abs_rel', figures['abs_rel'])}"]
    if "delta1" in figures:
        parts.append(f"δ1 {number('delta1', figures['delta1'])} %")
    return " · ".join(parts)


def shrunk(picture):
    """uint8 RGB, its longer side at most PICTURE_PX."""
    height, width = picture.shape[:2]
    scale = min(1.0, PICTURE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture
