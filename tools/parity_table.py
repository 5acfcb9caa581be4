"""Runs objectives and operators beside their references and writes docs/parity.md.

    python tools/parity_table.py [--out=docs/parity.md]

Prints the same tables. Exit code 1, and nothing is written, if an error exceeds its bound.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "objectives"))

import objective_parity  # noqa: E402
import operator_parity  # noqa: E402

# Heading, what the errors are, and a function that returns (name, reference, largest error, bound).
TABLES = (
    (
        "Objectives",
        "Relative errors of a loss; of a gradient, the error of its slope along random directions "
        "in parts of the largest. The references are `tests/objectives/slow.py`, on fixed maps of "
        "`tests/objectives/objective_parity.py`.",
        objective_parity.rows,
    ),
    (
        "Perturbations",
        "Differences of images in [0, 1]; 1/255 is 0.0039. torchvision's results are frozen in "
        "`tests/objectives/operator_reference.npz`.",
        operator_parity.rows,
    ),
)
HEAD = """# Objectives and operators beside their references

Made by `python tools/parity_table.py`, which fails if an error exceeds its bound.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "parity.md")
    out = parser.parse_args().out
    measured = [(title, note, rows()) for title, note, rows in TABLES]
    text = page(measured)
    print(text, end="")
    broken = too_large(row for *_, rows in measured for row in rows)
    if broken:
        sys.exit(f"above its bound: {'; '.join(broken)}")
    out.write_text(text)


def page(tables):
    """The tables (title, note, rows) as Markdown."""
    parts = [HEAD]
    for title, note, rows in tables:
        parts.append(f"\n## {title}\n\n{note}\n\n")
        parts.append("| | reference | largest error | bound |\n|---|---|---|---|\n")
        for name, reference, error, bound in rows:
            parts.append(f"| {name} | {reference} | {error:.2g} | {bound:.2g} |\n")
    return "".join(parts)


def too_large(rows):
    """Names of the rows whose error is above its bound, or is not a number."""
    return [f"{row[0]}, {row[1]}: {row[2]:.2g}" for row in rows if not row[2] <= row[3]]


if __name__ == "__main__":
    main()
