"""Results as rows of eval.json and as a table on a terminal."""

COLUMNS = {
    "accuracy": "accuracy",
    "abs_rel": "AbsRel",
    "delta1": "δ1",
    "delta2": "δ2",
    "delta3": "δ3",
    "rmse": "RMSE m",
    "log10": "log10",
    "silog": "SILog",
    "abs_rel_disparity": "AbsRel disp.",
    "abs_rel_disparity_unclipped": "unclipped",
}


def make_rows(results, groups=None, trained_on=None):
    """One row of plain values for every model on every set, and on every group of several sets,
    {name: sets}, whose figures are means over all their images.

    `trained_on`: the sets that the models learned from; says of each row whether it is of these.
    """
    members = {result.data: [result] for result in results}
    for name, sets in (groups or {}).items():
        if len(sets) > 1:
            members[name] = [result for result in results if result.data in sets]
    rows = [
        _row(name, model, group) for name, group in members.items() for model in group[0].figures
    ]
    if trained_on is not None:
        for row in rows:
            row["trained_on"] = all(r.data in trained_on for r in members[row["data"]])
    return rows


def _row(name, model, group):
    row = {
        "model": model,
        "data": name,
        "split": group[0].split,
        "images": sum(result.images for result in group),
        "skipped": sum(len(result.skipped) for result in group),
    }
    align = group[0].protocol.get("align", "none")
    row["align"] = align[model] if isinstance(align, dict) else align
    for key in group[0].figures[model]:
        if all(key in result.figures[model] for result in group):
            total = sum(result.images * result.figures[model][key] for result in group)
            row[key] = group[0].figures[model][key] if len(group) == 1 else total / row["images"]
    warnings = [r.protocol["warning"] for r in group if "warning" in r.protocol]
    return row | ({"warning": "; ".join(warnings)} if warnings else {})


def make_sets(results):
    """What belongs beside the rows, one entry a set: the protocol, and the images left out."""
    return [
        {
            "data": result.data,
            "split": result.split,
            "images": result.images,
            "protocol": result.protocol,
            "skipped": [{"id": name, "reason": reason} for name, reason in result.skipped],
        }
        for result in results
    ]


def table_text(rows, results):
    """A line for every row; below, what to know about a set."""
    shown = [key for key in COLUMNS if any(key in row for row in rows)]
    head = ["data", "images", "model", *(COLUMNS[key] for key in shown)]
    lines, before = [head], None
    for row in rows:
        own = [row["data"], str(row["images"])] if row["data"] != before else ["", ""]
        figures = [f"{row[key]:.4f}" if key in row else "–" for key in shown]
        lines.append([*own, row["model"], *figures])
        before = row["data"]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    left = {0, 2}
    text = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(text + notes(results))


def notes(results):
    """Sentences about a set that a reader of its figures must know."""
    said = []
    for result in results:
        if "warning" in result.protocol:
            said.append(f"{result.data}: {result.protocol['warning']}")
        reasons = {}
        for name, reason in result.skipped:
            reasons.setdefault(reason.partition(":")[0], []).append(name)
        for reason, names in reasons.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said.append(f"{result.data}: left out, {reason}: {', '.join(names[:3])}{more}")
    return said
