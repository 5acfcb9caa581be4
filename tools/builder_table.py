"""Runs the builders' tests and writes what each was tested on: docs/builders.md.

    python tools/builder_table.py

A builder's tests are those of tests/data/builders/ that belong to its module; those that ask for
the fixture `extra_data` read real files of the set, the others a miniature tree; the sample's read
what comes with dav.
"""

import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dav.data import catalog
from dav.data.builders import folder

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests" / "data" / "builders"
OUT = ROOT / "docs" / "builders.md"
REAL, MINIATURE = "real files", "miniature tree"
HEAD = f"""# What the builders were tested on

Made by `python tools/builder_table.py`, which runs their tests. *{MINIATURE}*: tests on a small
raw folder in the published layout, with known values at known pixels; *{REAL}*: tests on files
that the set's authors ship. Sets of one module share their tests. Counts are those that the authors
or the paper publish.

| data set | kind | images published | {MINIATURE} | {REAL} |
|---|---|---|---|---|
"""


class Outcomes:
    """Counts the outcomes of tests by builder module and by what they read."""

    def __init__(self):
        self.counts = defaultdict(Counter)
        self._kinds = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            subject = item.path.stem.removeprefix("test_")
            is_real = subject == "sample" or "extra_data" in item.fixturenames
            self._kinds[item.nodeid] = (subject, REAL if is_real else MINIATURE)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.skipped or report.failed:
            self.counts[self._kinds[report.nodeid]][report.outcome] += 1


def told(counts):
    """{'passed': 12, 'skipped': 1} → '12 passed, 1 skipped'."""
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())) or "–"


def rows(outcomes):
    """One line of the table a builder."""
    for module in catalog.MODULES:
        for builder in module.BUILDERS:
            yield row(builder, builder.name, outcomes, module)
    yield row(folder.make("folder/NAME"), "folder/NAME", outcomes, folder)


def row(builder, name, outcomes, module):
    """One line of the table."""
    subject = module.__name__.rsplit(".", 1)[1]
    published = ", ".join(f"{split} {n:,}" for split, n in builder.counts.items()) or "–"
    tested = [told(outcomes.counts[subject, kind]) for kind in (MINIATURE, REAL)]
    return f"| {name} | {builder.kind} | {published} | {' | '.join(tested)} |"


def main():
    """Exit code 1 if a test failed; the table is written only if none did."""
    outcomes = Outcomes()
    code = pytest.main(["-q", "-n0", "--no-header", str(TESTS)], plugins=[outcomes])
    if code:
        return 1
    table = HEAD + "\n".join(rows(outcomes)) + "\n"
    OUT.write_text(table)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
