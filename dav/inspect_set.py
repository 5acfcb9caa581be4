"""One data set's part of the page that dav.inspect writes."""

import html

import cv2
import numpy as np

from dav import inspect_charts, viz
from dav.data import statistics
from dav.data.frames import DEPTH_M, DISPARITY, PAIRS

THUMBNAIL_PX = 280  # of the longer side
PAIRS_DRAWN = 12
SKY_RGB = (86, 156, 214)
CLOSER_RGB, FARTHER_RGB = (253, 141, 36), (70, 130, 246)
REASONS_SHOWN = 8
IDS_SHOWN = 5
EXPLAINED = (
    "Valid and sky are means; 1 %, median and 99 % are the percentiles of the median image, in "
    "metres for metric depth. Lower part nearer: the share of images whose lower third of known "
    "pixels is nearer than the upper third; most scenes stand on a ground. Edges: the mean "
    "correlation of image edges and target edges, for the target as it is and mirrored; the first "
    "should be the largest."
)


def section(anchor, view, findings, most_records):
    """The HTML of one View; `findings` are the sentences to begin with."""
    seen = [one for split in view.splits for one in split.measures.values()]
    kinds = {one.quantity for one in seen}
    kind = kinds.pop() if len(kinds) == 1 else ""
    parts = [
        f'<h2 id="{anchor}">{html.escape(view.name)}</h2>',
        f'<p class="soft">{html.escape(str(view.folder))}</p>',
        _list("findings", findings),
        _splits(view, kind, most_records),
        inspect_charts.charts(seen, kind) if seen else "",
        "<h3>Examples, evenly spaced</h3>",
        _legend(kind),
        gallery([(name, one, decoded, "") for name, one, decoded in view.examples]),
    ]
    if view.oddest:
        parts += ["<h3>The oddest</h3>", gallery(view.oddest)]
    parts += [_unreadable(view), left_out(view.report)]
    return "".join(parts)


def _list(kind, lines):
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if lines else ""


def _splits(view, kind, most_records):
    """The table: one line a split, means or medians over what was read of it."""
    columns = ["split", "records", "published", "read"]
    said = f"At most {most_records:,} records of each split were read, evenly spaced. "
    if kind == PAIRS:
        columns.append("closer point lower")
        said += "Closer point lower: the share of pairs; most scenes stand on a ground."
    elif kind:
        columns += ["valid", "sky", "1 %", "median", "99 %", "lower part nearer"]
        columns += ["edges agree, as it is", *statistics.MIRRORS[1:]]
        said += EXPLAINED
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(_split_row(split, kind, view.published) for split in view.splits)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div><p class="soft">{said}</p>'


def _split_row(split, kind, published):
    measures = list(split.measures.values())
    wanted = published.get(split.name)
    cells = [f"<th>{html.escape(split.name)}</th>", f"<td>{split.records:,}</td>"]
    cells.append(f"<td>{wanted:,}</td>" if wanted else "<td>–</td>")
    cells.append(f"<td>{len(measures):,}</td>")
    if kind == PAIRS:
        cells.append(_cell(_mean([one.pairs_below for one in measures]), "{:.0%}"))
    elif kind:
        cells += _map_cells(measures, kind)
    return f"<tr>{''.join(cells)}</tr>"


def _map_cells(measures, kind):
    cells = [
        _cell(_mean([one.valid for one in measures]), "{:.1%}"),
        _cell(_mean([one.sky for one in measures]), "{:.1%}"),
    ]
    unit = " m" if kind == DEPTH_M else ""
    for column in np.array([one.percentiles for one in measures]).reshape(-1, 3).T:
        finite = column[np.isfinite(column)]
        cells.append(f"<td>{number(np.median(finite))}{unit}</td>" if finite.size else "<td>–</td>")
    cells.append(_cell(_mean([one.rises for one in measures]), "{:.0%}"))
    edges = [_mean([one.edges[i] for one in measures]) for i in range(4)]
    for index, value in enumerate(edges):
        mark = ("bad" if index else "best") if value == max(edges) else ""
        cells.append(_cell(round(value, 2) + 0.0, "{:.2f}", mark))
    return cells


def _cell(value, form, mark=""):
    mark = f' class="{mark}"' if mark else ""
    return f"<td{mark}>{form.format(value)}</td>" if np.isfinite(value) else "<td>–</td>"


def number(value):
    """0.123, 12.3, 1,234: three digits, and none left out before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mean(values):
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.nan


def _legend(kind):
    if kind == PAIRS:
        chips = [(CLOSER_RGB, "closer point"), (FARTHER_RGB, "farther point")]
        return f'<p class="soft">{_chips(chips)}</p>'
    if not kind:
        return ""
    chips = [((255, 255, 255), "measured"), ((0, 0, 0), "not measured"), (SKY_RGB, "sky")]
    return (
        '<p class="soft">Image; disparity, one colour scale each: far <span class="scale inferno">'
        "</span> near, grey where nothing was measured; mask: "
        f"{_chips(chips)}; both laid over each other. Edges must fall on edges.</p>"
    )


def _chips(chips):
    return " ".join(
        f'<span class="chip" style="background: rgb{color}"></span>{text}' for color, text in chips
    )


def gallery(entries):
    """Pictures of (split name, Measures, Decoded, why it is shown)."""
    cells = []
    for split, one, decoded, why in entries:
        name = f"<b>{html.escape(decoded.id)}</b> {html.escape(split)}"
        why = f" · <b>{html.escape(why)}</b>" if why else ""
        caption = f"{name} · {html.escape(caption_of(one))}{why}"
        tags = [viz.image_tag(picture, decoded.id) for picture in pictures(decoded)]
        if len(tags) == 1:
            cells.append(f"<figure>{tags[0]}{caption}</figure>")
        else:
            cells += [f'<div class="row">{caption}</div>', *tags]
    return f'<div class="gallery">{"".join(cells)}</div>'


def caption_of(one):
    """The figures of one example in a line."""
    parts = [f"{one.width}×{one.height}"]
    if one.quantity == PAIRS:
        parts.append(f"{one.pairs} pairs")
    elif one.quantity:
        parts.append(f"{one.valid:.1%} valid")
        if one.sky:
            parts.append(f"{one.sky:.1%} sky")
        low, middle, high = (number(value) for value in one.percentiles)
        unit = " m" if one.quantity == DEPTH_M else f" ({one.quantity})"
        parts.append(f"{low} … {middle} … {high}{unit}")
    return " · ".join(parts)


def pictures(decoded):
    """uint8 RGB thumbnails: the image alone, with its points, or image, map, mask and overlay."""
    height, width = decoded.image.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(decoded.image, size, interpolation=cv2.INTER_AREA)
    if decoded.points is not None:
        return [draw_pairs(image, decoded.points * scale)]
    if decoded.values is None:
        return [image]
    disparity, measured = _shrunk_map(decoded, size)
    sky = cv2.resize(decoded.sky.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    low, high = viz.disparity_range(disparity, measured)
    colored = viz.colorize(disparity, low, high, valid=measured | sky)
    mask = np.where(measured[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=-1)
    mask[sky] = SKY_RGB
    grey = image.mean(axis=-1, keepdims=True)
    known = (measured | sky)[..., None]
    overlay = np.where(known, 0.5 * colored + 0.5 * grey, grey).astype(np.uint8)
    return [image, colored, mask, overlay]


def _shrunk_map(decoded, size):
    """Disparity and mask in a thumbnail's size; of sparse maps every point shows, the nearest
    first."""
    values, measured = decoded.values, decoded.measured
    disparity = np.zeros(values.shape, np.float32)
    inside = values[measured]
    disparity[measured] = inside if decoded.quantity == DISPARITY else 1 / inside
    if measured.mean() < 0.3:
        reach = int(np.ceil(values.shape[1] / size[0]))
        disparity = cv2.dilate(disparity, np.ones((reach, reach), np.uint8))
        measured = disparity > 0
    disparity = cv2.resize(disparity, size, interpolation=cv2.INTER_NEAREST)
    return disparity, cv2.resize(measured.astype(np.uint8), size, interpolation=0) > 0


def draw_pairs(image, points):
    """The first pairs as lines from the closer point to the farther one, in thumbnail pixels."""
    drawn = image.copy()
    for closer, farther in points[:PAIRS_DRAWN]:
        ends = [tuple(round(float(at)) for at in end[::-1]) for end in (closer, farther)]
        cv2.line(drawn, *ends, (255, 255, 255), 1, cv2.LINE_AA)
        for end, color in zip(ends, (CLOSER_RGB, FARTHER_RGB), strict=True):
            cv2.circle(drawn, end, 5, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(drawn, end, 4, color, -1, cv2.LINE_AA)
    return drawn


def _unreadable(view):
    lines = [f"{split.name}: {why}" for split in view.splits for why in split.unreadable]
    return f"<h3>Cannot be read</h3>{_list('soft', lines[:50])}" if lines else ""


def left_out(report):
    """What the preparation skipped, by reason, and how many duplicates it dropped.

    A report of another form, beside a data set that was built elsewhere, tells nothing.
    """
    splits = report.get("splits")
    rows = []
    for name, split in splits.items() if isinstance(splits, dict) else ():
        if isinstance(split, dict):
            rows += [(name, *row) for row in _left_out_of(split)]
    if not rows:
        return ""
    body = "".join(
        f'<tr><th>{html.escape(name)}</th><td>{count:,}</td><td class="text">{html.escape(why)}'
        f'</td><td class="text">{html.escape(ids)}</td></tr>'
        for name, count, why, ids in rows
    )
    head = '<th>split</th><th>examples</th><th class="text">why</th><th class="text">such as</th>'
    return (
        "<h3>Left out when it was prepared</h3>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _left_out_of(split):
    """(count, reason, some ids) of one split of a report."""
    by_reason, skipped = {}, split.get("skipped")
    for line in skipped if isinstance(skipped, list) else ():
        line = line if isinstance(line, dict) else {"reason": line}
        by_reason.setdefault(str(line.get("reason")), []).append(str(line.get("id", "")))
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    rows = [(len(ids), why, ", ".join(ids[:IDS_SHOWN])) for why, ids in ordered[:REASONS_SHOWN]]
    rest = sum(len(ids) for _, ids in ordered[REASONS_SHOWN:])
    duplicates = split.get("duplicates") or 0
    duplicates = duplicates if isinstance(duplicates, int) else len(duplicates)
    rows.append((rest, "other reasons", ""))
    rows.append((duplicates, "duplicates of other images", ""))
    return [row for row in rows if row[0]]
