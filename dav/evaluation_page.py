"""The page of an evaluation: every model on every data set, with published figures beside ours.

One file that needs nothing beside it: pictures, styles and charts are inside, and it holds no
scripts.
"""

import html
import importlib.resources
import string

from dav import evaluation_set
from dav.evaluation import published
from dav.evaluation_set import comparison, is_pairs, number
from dav.files import write_whole

DOUBTFUL = "†"
NOT_COMPARABLE = "‡"
SEEN = "*"


def write_page(path, title, results, *, notes=()):
    """Writes one HTML page about a list of SetResult; `notes` are sentences to stand above it."""
    template = importlib.resources.files("dav").joinpath("evaluation.html").read_text()
    page = string.Template(template).substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle(results)),
        lead=html.escape(lead(results)),
        notes=_notes(notes),
        overview=overview(results),
        sections="".join(
            evaluation_set.section(f"set{index}", result) for index, result in enumerate(results)
        ),
    )
    write_whole(path, page)


def subtitle(results):
    """How many models, sets and images."""
    images = sum(result.images for result in results)
    parts = (
        (len(models_of(results)), "model"),
        (len(results), "data set"),
        (images, "image"),
    )
    return " · ".join(f"{count:,} {noun}{'s' * (count != 1)}" for count, noun in parts)


def models_of(results):
    """All models in the order in which they were named."""
    return list(dict.fromkeys(model for result in results for model in result.figures))


def lead(results):
    """The result in a sentence: the best figure of each set, and whose it is."""
    found = [one for one in map(_best, results) if one]
    winners = list(dict.fromkeys(model for *_, model in found))
    if not found:
        return ""
    is_alone = len(winners) == 1
    listed, before = [], None
    for words, data, figure, model in found:
        whose = "" if is_alone else f" ({model})"
        listed.append(f"{words + ' ' if words != before else ''}{figure} on {data}{whose}")
        before = words
    if not is_alone:
        return f"The best of each set: {', '.join(listed)}."
    where = " is the best on every set" if len(found) > 1 else " is the best"
    return f"{winners[0]}{where * (len(models_of(results)) > 1)}: {', '.join(listed)}."


def _best(result):
    """(metric in words, data set, figure, model) of the best model, or None."""
    name = evaluation_set.main_metric(result)
    figures = {model: f[name] for model, f in result.figures.items() if name in f}
    if not figures:
        return None
    model = (max if is_pairs(result) else min)(figures, key=figures.get)
    words, unit = ("pairs in order", " %") if is_pairs(result) else ("AbsRel", "")
    return words, result.data, number(name, figures[model]) + unit, model


def overview(results):
    """Models down, sets across, the published ones below ours; then what to know about them."""
    head = "".join(_head(index, result) for index, result in enumerate(results))
    ours = [
        f"<tr><th>{html.escape(model)}</th>{''.join(_cell(model, r) for r in results)}</tr>"
        for model in models_of(results)
    ]
    groups = f"<tbody>{''.join(ours)}</tbody>"
    theirs = published_lines(results)
    if theirs:
        label = f'<tr><td class="text" colspan="{len(results) + 1}">published</td></tr>'
        groups += f'<tbody class="published">{label}{"".join(theirs)}</tbody>'
    table = f"<table><thead><tr><th></th>{head}</tr></thead>{groups}</table>"
    return f'<div class="wide">{table}</div>{_footnotes(results)}'


def _head(index, result):
    mark = {True: "", False: DOUBTFUL, None: NOT_COMPARABLE}[agreement(result)]
    name = f'<a href="#set{index}">{html.escape(result.data)}</a>{mark}'
    return f"<th>{name}<br>{html.escape(result.split)}, {result.images:,}</th>"


def agreement(result):
    """Of a known benchmark whether published figures may be compared as they are (True), with
    doubt (False), or not at all (None); True, too, where there are none."""
    rows, said = comparison(result)
    if not rows:
        return None if said else True
    return published.BENCHMARKS[result.data].reproduces


def _cell(model, result):
    figures = result.figures.get(model)
    if figures is None:
        return "<td>–</td>"
    name = evaluation_set.main_metric(result)
    values = [f[name] for f in result.figures.values() if name in f]
    best = (max if is_pairs(result) else min)(values)
    mark = ' class="best"' if figures[name] == best and len(values) > 1 else ""
    return f"<td{mark}>{_figures(figures)}</td>"


def _figures(figures, mark=""):
    """AbsRel with δ1 small beside it; of pairs their share alone."""
    if "accuracy" in figures:
        return number("accuracy", figures["accuracy"]) + mark
    delta1 = f"<small>{number('delta1', figures['delta1'])}</small>" if "delta1" in figures else ""
    return number("abs_rel", figures["abs_rel"]) + mark + delta1


def published_lines(results):
    """Table rows of the papers' own figures on those sets that may be compared."""
    columns = [
        {row.model: row for row in comparison(result)[0] if row.is_paper} for result in results
    ]
    lines = []
    for model in dict.fromkeys(model for column in columns for model in column):
        cells = "".join(
            f"<td>{_figures(column[model].figures, SEEN * bool(column[model].remark))}</td>"
            if model in column
            else "<td>–</td>"
            for column in columns
        )
        lines.append(f"<tr><th>{html.escape(model)}</th>{cells}</tr>")
    return lines


def _footnotes(results):
    said = []
    kinds = {is_pairs(result) for result in results}
    if False in kinds:
        said.append("AbsRel, lower is better; small, δ1 in per cent, higher is better.")
    if True in kinds:
        said.append("Of sets of point pairs, the per cent that is ordered rightly.")
    found = {agreement(result) for result in results}
    if False in found:
        said.append(f"{DOUBTFUL} not known to be the protocol of the published figures.")
    if None in found:
        said.append(f"{NOT_COMPARABLE} not comparable with published figures.")
    remarks = {row.remark for result in results for row in comparison(result)[0] if row.remark}
    said += [f"{SEEN} {remark}." for remark in sorted(remarks)]
    return f'<p class="soft">{html.escape(" ".join(said))}</p>'


def _notes(notes):
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""
