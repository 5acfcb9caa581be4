"""How long a process takes to find out which label shards are finished.

    python benchmarks/label_manifest.py [--shards=60000] [--out=FILE]

Writes so many small label shards' lines into a temporary folder, and tells the seconds that
`finished_shards` takes: with the lines in one file, as a labelling leaves them, and one by one, as
the first process finds them after a labelling that did not come to its end. Prints, writes JSON.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from dav.data import label_shards

ROOT = Path(__file__).parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=60_000)
    parser.add_argument("--out", default=ROOT / "benchmarks" / "results" / "label_manifest.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), arguments.shards)
        one_by_one = seconds_to_read(folder, arguments.shards)
        label_shards.merge(folder, me="benchmark")
        size = (Path(folder) / label_shards.MERGED).stat().st_size
        merged = seconds_to_read(folder, arguments.shards)
    result = {
        "shards": arguments.shards,
        "cores": os.cpu_count(),
        "manifest_bytes": size,
        "seconds_one_by_one": one_by_one,
        "seconds_merged": merged,
    }
    print(json.dumps(result, indent=1))
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


def write_shards(folder, count):
    """Files of one byte with lines as labelling writes them."""
    (folder / "manifest").mkdir()
    outlier = {"index": 7, "id": "0123456789abcdef", "kind": "roughest", "value": 0.0123456789}
    for number in range(count):
        name = f"places365-train.array_record-{number:05d}-of-{count:05d}"
        (folder / name).write_bytes(b"x")
        line = {
            **{"shard": name, "records": 1024, "teacher": "teacher", "failed": []},
            "statistics": {"low": 0.0, "median": 1.5, "high": 9.5, "zeros": 0.01, "constant": 0},
            "outliers": [outlier] * 3,
            "measured": {"seconds": 9.5, "modified_ns": (folder / name).stat().st_mtime_ns},
            **{"bytes": 1, "sha256": "0" * 64},
        }
        (folder / "manifest" / f"{name}.json").write_text(json.dumps(line))


def seconds_to_read(folder, count):
    begin = time.perf_counter()
    assert len(label_shards.finished_shards(folder, "teacher")) == count
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
