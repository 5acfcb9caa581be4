"""Looks at prepared data sets and writes one page, by which a person sees what is wrong with them.

    python -m dav.data.inspect DIR [OPTION ...]

DIR is the folder of a prepared data set, or any folder above several. The page holds pictures,
figures, what stands out, and what was left out when the set was prepared.

    --out=FILE.html      the page (DIR/inspect.html)
    --examples=12        that are shown of each data set
    --records=1000       that are read of each split, evenly spaced; all figures are theirs

Exit codes: 0 done; 2 wrong usage; 75 stopped, nothing was written; 1 some records could not be
read, as the page says, or anything else failed.
"""

import html
import importlib.resources
import string
from pathlib import Path

from dav import inspect_set
from dav import main as entry
from dav.data import findings, inspect
from dav.errors import ConfigError, DavError
from dav.files import local_path, write_whole
from dav.runtime.telemetry import Progress

PLAIN_EVERY_RECORDS = 500


def main(argv):
    """Runs one command; returns its exit code."""

    def work():
        arguments = parse(argv)
        entry.quieten()
        print(write_page(**arguments))

    said = "stopped; nothing was written"
    return entry.carry_out(argv, __doc__, work, interrupted=said, folder_options="--out")


def parse(argv):
    """Command line → the arguments of write_page. Raises ConfigError for what makes no sense."""
    from absl import flags

    values = flags.FlagValues()
    flags.DEFINE_string("out", "", "", flag_values=values)
    flags.DEFINE_integer("examples", 12, "", 0, flag_values=values)
    flags.DEFINE_integer("records", 1000, "", 1, flag_values=values)
    rest = entry.read_flags(values, argv)
    if len(rest) != 1:
        raise ConfigError("one DIR is needed (--help shows the usage)")
    folder = local_path(rest[0])
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name that of a prepared data set, or one above")
    return {
        "folder": folder,
        "out": local_path(values.out) if values.out else folder / "inspect.html",
        "examples": values.examples,
        "most_records": values.records,
    }


def write_page(folder, out, *, examples=12, most_records=1000):
    """Writes the page; returns a line that says what stands where.

    Raises DavError, after the page is written, if records or whole sets could not be read.
    """
    found = inspect.find_sets(folder)
    rows, sections, unreadable = [], [], 0
    for index, path in enumerate(found):
        try:
            name = inspect.place_of(path)[1]
            with Progress(name, 0, plain_every=PLAIN_EVERY_RECORDS) as progress:
                view = inspect.look(
                    path, most_records=most_records, examples=examples, tell=_teller(progress)
                )
        except DavError as error:
            unreadable += 1
            sections.append(_failed(path, error))
            continue
        unreadable += sum(len(split.unreadable) for split in view.splits)
        said = _findings(view)
        rows.append(_row(index, view, said))
        sections.append(inspect_set.section(f"set{index}", view, said, most_records))
    template = importlib.resources.files("dav").joinpath("inspect.html").read_text()
    page = string.Template(template).substitute(
        title=html.escape(
            f"{len(found)} prepared data sets" if len(found) > 1 else "Prepared data"
        ),
        subtitle=html.escape(str(Path(folder).absolute())),
        overview=_overview(rows) if len(found) > 1 else "",
        sections="".join(sections),
    )
    write_whole(out, page)
    if unreadable:
        raise DavError(f"{unreadable} records or sets could not be read; {out} says which")
    return f"wrote {out}: {len(found)} data set{'s' * (len(found) > 1)}"


def _teller(progress):
    def tell(done, total):
        progress.total = total
        progress.update(done, unit="records")

    return tell


def _findings(view):
    """What looks wrong in each split, the split named where there are several."""
    said = []
    for split in view.splits:
        name = f"{split.name}: " if len(view.splits) > 1 else ""
        said += [name + line for line in findings.findings(list(split.measures.values()))]
        if split.unreadable:
            said.append(f"{name}{len(split.unreadable)} records cannot be read")
    if not view.is_finished:
        said.append("its preparation was not finished: it has no checksums")
    return said


def _row(index, view, said):
    """One line of the overview."""
    records = sum(split.records for split in view.splits)
    seen = [one for split in view.splits for one in split.measures.values()]
    kinds = ", ".join(sorted({one.quantity or "no target" for one in seen}))
    name = f'<a href="#set{index}">{html.escape(view.name)}</a>'
    brief = "; ".join(dict.fromkeys(line.partition("?")[0] + "?" * ("?" in line) for line in said))
    look = f'<span class="bad">{html.escape(brief)}</span>' if said else "–"
    return (
        f'<tr><th>{name}</th><td>{records:,}</td><td class="text">{html.escape(kinds)}</td>'
        f'<td>{view.bytes / 1e6:,.1f} MB</td><td class="text">{look}</td></tr>'
    )


def _overview(rows):
    head = '<th>data set</th><th>records</th><th class="text">target</th><th>on disk</th>'
    head += '<th class="text">findings</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _failed(path, error):
    return (
        f"<h2>{html.escape(str(path))}</h2>"
        f'<ul class="findings"><li>{html.escape(str(error))}</li></ul>'
    )
