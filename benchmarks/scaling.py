"""What each process and each device does as a run grows: the same, wherever it can be.

    python benchmarks/scaling.py [--only=host,traffic] [--processes=1,2,4,8]
                                 [--devices=8,16,32,64,128,256] [--fsdp=1,8] [--sizes=tiny]
                                 [--photos=FOLDER] [--out=FILE.json]

host     CPU time per image of batches[step] (reading, decoding, cropping, batching), for as many
         simulated processes as named, each with 4 labelled and 8 unlabelled images of every global
         batch, from 1.6 + 62.3 million records that take no space; and what a process costs before
         its first batch. See scaling_host.py.
traffic  Bytes that each device sends in a training step, of the program compiled for so many
         simulated CPU devices, each with 1 labelled and 2 unlabelled images, weights whole or
         split over --fsdp devices; against the formula. Nothing is run. See scaling_traffic.py.

Prints tables with ratios, writes JSON, where it keeps what the other parts and sizes have said.
`traffic` takes a minute or two for each program on a small machine.
"""

import argparse
import json
import os
import platform
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main():
    arguments = parse_arguments()
    out = Path(arguments.out)
    result = json.loads(out.read_text()) if out.exists() else {}
    result |= {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0))}
    if "host" in arguments.only:
        import scaling_host

        result["host"] = scaling_host.measure(arguments.photos, arguments.processes)
    if "traffic" in arguments.only:
        import scaling_traffic

        found = scaling_traffic.measure(arguments.devices, arguments.fsdp, arguments.sizes)
        others = result.get("traffic", {"rows": []})["rows"]
        kept = [row for row in others if row["size"] not in arguments.sizes]
        result["traffic"] = found | {"rows": kept + found["rows"]}
    out.write_text(json.dumps(result, indent=1) + "\n")


def parse_arguments():
    def numbers(text):
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=lambda text: text.split(","), default=["host", "traffic"])
    parser.add_argument("--processes", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--devices", type=numbers, default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--fsdp", type=numbers, default=[1, 8])
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["tiny"])
    parser.add_argument("--photos", default=str(ROOT / "dav" / "sample" / "photos"))
    parser.add_argument("--out", default=ROOT / "benchmarks" / "results" / "scaling.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
