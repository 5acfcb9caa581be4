"""One data set's part of the page that dav.evaluation_page writes."""

import html
import math

import cv2

from dav import viz
from dav.evaluation import pictures, protocols, published

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
    "abs_rel_disparity_unclipped": "the same, unclipped",
    "accuracy": "all pairs",
}
DEPTH_HEADS = ("photograph", "measured", "predicted, aligned", "error")
PAIR_HEADS = ("photograph", "pairs", "predicted", "pairs ordered wrongly")


def is_pairs(result):
    """Whether a result is of pairs of points, not of depth."""
    return any("accuracy" in figures for figures in result.figures.values())


def main_metric(result):
    """The metric that models are compared by."""
    return "accuracy" if is_pairs(result) else "abs_rel"


def section(anchor, result):
    """The HTML of one SetResult."""
    count = f"{result.images:,} image{'s' * (result.images != 1)}"
    protocol = dict(result.protocol)
    parts = [
        f'<h2 id="{anchor}">{html.escape(result.data)}</h2>',
        f'<p class="soft">{html.escape(result.split)} split · {count}</p>',
        _warning(protocol.pop("warning", "")),
        pair_table(result) if is_pairs(result) else depth_table(result),
        _paragraph(comparison(result)[1]),
        _protocol(protocol),
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
    left_out = len(result.skipped)
    if result.split != "test" or not benchmark.is_whole(result.images, left_out):
        return (), (
            f"Not comparable with published figures: those are over {benchmark.images:,} images of "
            f"{benchmark.name}, these over {result.images:,} of the {result.split} split"
            f"{f', {left_out:,} left out' if left_out else ''}."
        )
    others = deviations(result)
    if others:
        return (), (
            "Not comparable with published figures, whose protocol is taken to be another: here "
            f"{', '.join(others)}."
        )
    fewer = f" {left_out:,} of its images are left out here." if left_out else ""
    return published.published_for(result.data), benchmark.doubt + fewer


def deviations(result):
    """In words what of a result's protocol is not as its data set is usually evaluated."""
    usual, own = protocols.protocol_of(result.data), result.protocol
    words = [
        f"{entry(name)} {plain(own[name])}"
        for name in ("crop", "min_depth_m", "max_depth_m")
        if name in own and own[name] != getattr(usual, name)
    ]
    side_px = own.get("short_side_px", protocols.SHORT_SIDE_PX)
    if side_px != protocols.SHORT_SIDE_PX:
        words.append(f"{entry('short_side_px')} {plain(side_px)}")
    align = own.get("align", "lstsq_disparity")
    hows = set(align.values()) if isinstance(align, dict) else {align}
    return words + [f"align {how}" for how in sorted(hows - {"lstsq_disparity"})]


def depth_table(result):
    """AbsRel and δ1, ours and the published ones, and all metrics on demand."""
    seen = dict.fromkeys(name for figures in result.figures.values() for name in figures)
    every = [name for name in LABELS if name in seen] + [
        name for name in seen if name not in LABELS
    ]
    table = _table(result, every)
    return (
        f"{_table(result, ['abs_rel', 'delta1'], comparison(result)[0])}"
        f'<details class="metrics"><summary>All metrics</summary>{table}</details>'
    )


def pair_table(result):
    """The share of pairs ordered rightly, of all and of each scene."""
    seen = dict.fromkeys(name for figures in result.figures.values() for name in figures)
    scenes = [name for name in seen if name.startswith("accuracy ")]
    said = "Pairs of points ordered rightly, in per cent; “all pairs” is over pairs, not scenes."
    table = _table(result, ["accuracy", *scenes], comparison(result)[0])
    return f'<p class="soft">{said}</p>{table}'


def _table(result, metrics, rows=()):
    """Our models, then the published rows by their source."""
    head = "".join(f"<th>{html.escape(label(name))}</th>" for name in metrics)
    values = [f[metrics[0]] for f in result.figures.values() if metrics[0] in f]
    best = (max if is_pairs(result) else min)(values, default=None) if len(values) > 1 else None
    groups = "".join(
        _row(model, figures, metrics, is_best=figures.get(metrics[0]) == best is not None)
        for model, figures in result.figures.items()
    )
    groups = f"<tbody>{groups}</tbody>"
    for source in dict.fromkeys(row.source for row in rows):
        named = [row for row in rows if row.source == source]
        kind = "Published" if named[0].is_paper else "Not the paper's own"
        width = len(metrics) + 1
        lines = f'<tr><td class="text" colspan="{width}">{kind}: {html.escape(source)}</td></tr>'
        lines += "".join(_row(row.model, row.figures, metrics, remark=row.remark) for row in named)
        groups += f'<tbody class="published">{lines}</tbody>'
    table = f"<table><thead><tr><th></th>{head}</tr></thead>{groups}</table>"
    return f'<div class="wide">{table}</div>'


def _row(model, figures, metrics, *, is_best=False, remark=""):
    mark = ' class="best"' if is_best else ""
    remark = f"<small>{html.escape(remark)}</small>" if remark else ""
    cells = f"<th>{html.escape(model)}{remark}</th>"
    for index, name in enumerate(metrics):
        cells += f"<td{mark if index == 0 else ''}>{number(name, figures.get(name))}</td>"
    return f"<tr>{cells}</tr>"


def label(metric):
    """A metric's name for people; of pairs, the scene's."""
    return LABELS.get(metric, metric.removeprefix("accuracy ").replace("_", " "))


def number(metric, value):
    """A figure as a table shows it: shares of pixels or pairs in per cent, the rest as they are."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric.partition(" ")[0] in PERCENT:
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def _paragraph(text):
    return f'<p class="remark">{html.escape(text)}</p>' if text else ""


def _warning(text):
    return f'<p class="warning">{html.escape(str(text))}</p>' if text else ""


def _protocol(protocol):
    """All of it in words; checksums on demand."""
    if not protocol:
        return ""
    sums = {name: value for name, value in protocol.items() if name.endswith("sha256")}
    words = {name: value for name, value in protocol.items() if name not in sums}
    folded = f"<details><summary>Checksums</summary>{_definitions(sums)}</details>" if sums else ""
    return f"<h3>Protocol</h3>{_definitions(words)}{folded}"


def _definitions(entries):
    lines = (
        f"<dt>{html.escape(entry(str(name)))}</dt><dd>{html.escape(plain(value))}</dd>"
        for name, value in entries.items()
    )
    return f"<dl>{''.join(lines)}</dl>"


def entry(name):
    """An entry of a protocol for people: max_depth_m → "max depth (m)"."""
    for unit in ("m", "px"):
        if name.endswith(f"_{unit}"):
            name = f"{name.removesuffix(f'_{unit}')} ({unit})"
    return name.replace("_", " ")


def plain(value):
    """A plain value in words."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    return "–" if value is None or value == "" else str(value)


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
        said = f"Green is the closer point of a pair, red the farther. Predicted disparity: {near}."
    else:
        most = f"{100 * pictures.MAX_ERROR:.0f} % and more"
        error = f"0 {viz.scale_tag(viz.COLORMAPS['viridis'])} {most}"
        said = (
            f"Disparity, one colour scale a row: {near}; grey where nothing was measured. "
            f"Relative depth error: {error}."
        )
    return f'<h3>Best and worst images</h3><p class="soft">{said}</p>'


def _extremes(result, model, *, is_open):
    """The best and worst images of one model."""
    # Of a small set each image is shown once, with the better or with the worse half.
    best = result.best.get(model, ())[: (result.images + 1) // 2]
    worst = result.worst.get(model, ())[: result.images // 2]
    groups = [
        f"<h4>{name}</h4>{cases(chosen, model, is_pairs(result))}"
        for name, chosen in (("Best", best), ("Worst", worst))
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
        four = one.image, one.truth, one.aligned[model], one.error[model]
        tags = "".join(
            f"<figure>{viz.image_tag(shrunk(picture), one.id, quality=JPEG_QUALITY)}"
            f"<figcaption>{head}</figcaption></figure>"
            for head, picture in zip(heads, four, strict=True)
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
