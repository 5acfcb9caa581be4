"""`python -m dav.data.prepare` that knows the tests' data sets too."""

import sys

import tiny

from dav.data import catalog

KNOWN = catalog.builders()
ADDED = (
    tiny.builder("tiny"),
    tiny.builder("tiny/depth", labelled=True),
    tiny.builder("tiny/slow", pause_s=0.02),
)
catalog.builders = lambda: KNOWN | {builder.name: builder for builder in ADDED}

if __name__ == "__main__":
    from dav.prepare import main

    sys.exit(main(sys.argv))
