"""What a pseudo-label costs: bytes, time to decode, largest error, by codec.

    python benchmarks/label_codec.py --weights=FILE --images FOLDER... [--per_folder=8] [--out=FILE]

Maps are made first, with the given weights at 518×686 (686×518 if upright), from the middle of
photographs spread evenly over each folder. Then every codec encodes and decodes every map, to
float32, on one core and one thread. The codecs take turns on each map, and a map's time is the
least of --turns turns, because others may use the machine; the table has the median over maps.
Lossy codecs are told to stay within 1/1000 of the map's range; lossless ones store a grid of that
error. Prints a table, writes JSON. Needs imagecodecs.
"""

import argparse
import functools
import json
import os
import platform
import sys
import time
from pathlib import Path

import cv2
import imagecodecs as ic
import numpy as np
import zstandard

import dav
from dav.data import labels
from dav.data.transforms import resize_image
from dav.images import read_image

ROOT = Path(__file__).parent.parent
SIZE_PX = 518, 686
SUFFIXES = (".jpg", ".jpeg", ".png")
BOUND = labels.LARGEST_ERROR
FINE, COARSE = 65535, 501  # steps to the range; half a step of 501 is just within the bound
NEAR = 65  # steps of FINE just within it, rounding included
EDGE = 1 / 50  # of the range, between neighbours
GOAL_BYTES = 40_000
REFERENCE = "PNG, 65535 steps"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", nargs="+", required=True, type=Path)
    parser.add_argument("--per_folder", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", default=ROOT / "benchmarks" / "results" / "label_codec.json")
    arguments = parser.parse_args()
    maps = make_maps(arguments.weights, arguments.images, arguments.per_folder)
    use_one_core()
    measured = {name: [] for name in codecs(maps[0])}
    for number, disparity in enumerate(maps):
        for name, figures in measure(disparity, arguments.turns).items():
            measured[name].append(figures)
        print(f"{number + 1} of {len(maps)} maps", file=sys.stderr)
    rows = [summary(name, figures) for name, figures in measured.items()]
    rows.sort(key=lambda row: row["mean_bytes"])
    reference = next(row for row in rows if row["codec"] == REFERENCE)
    for row in rows:
        row["share_of_png"] = row["mean_bytes"] / reference["mean_bytes"]
    print_table(rows)
    upright = sum(disparity.shape != SIZE_PX for disparity in maps)
    result = machine() | {"size_px": SIZE_PX, "maps": len(maps), "upright": upright}
    Path(arguments.out).write_text(
        json.dumps(result | {"turns": arguments.turns, "rows": rows}, indent=1) + "\n"
    )


def make_maps(weights, folders, per_folder):
    """Disparity float32, 518×686 or upright, of photographs as labelling sees them."""
    model = dav.load(weights)
    maps = []
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        evenly = np.linspace(0, len(files) - 1, min(per_folder, len(files)))
        for index in evenly.astype(int):
            image = middle(read_image(files[index]))
            size = SIZE_PX if image.shape[1] >= image.shape[0] else SIZE_PX[::-1]
            maps.append(model.predict(resize_image(image, size)))
    return maps


def middle(image):
    """The largest part of an image, 4:3 or 3:4, around its middle."""
    height, width = image.shape[:2]
    aspect = 4 / 3 if width >= height else 3 / 4
    rows, columns = min(height, round(width / aspect)), min(width, round(height * aspect))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def use_one_core():
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def codecs(disparity):
    """Name → (encode: disparity → bytes, decode: bytes → float32 [H, W]) for one map."""
    low, spread = float(disparity.min()), float(np.ptp(disparity))
    error = 0.999 * BOUND * spread  # float32 rounds too
    shape = {"shape": disparity.shape, "dtype": np.float32}

    def stored(steps, encode, decode):
        """A codec of whole numbers as one of maps, of `steps` to the range."""
        step = np.float64(spread / steps)
        return (
            lambda disparity: encode(np.rint((disparity - np.float64(low)) / step).astype("u2")),
            lambda data: (decode(data) * step + low).astype(np.float32),
        )

    png = functools.partial(stored, encode=encode_png, decode=decode_png)
    found = {
        "dav": (
            lambda disparity: labels.encode_label("x", disparity),
            lambda data: labels.decode_label(data)["disparity"],
        ),
        REFERENCE: png(FINE),
        "PNG, 4095 steps": png(4095),
        "PNG, 501 steps": png(COARSE),
        "LERC": (functools.partial(ic.lerc_encode, level=error), ic.lerc_decode),
        "LERC + zstd": (
            functools.partial(
                ic.lerc_encode, level=error, compression="zstd", compressionargs={"level": 19}
            ),
            ic.lerc_decode,
        ),
        "JPEG-LS near-lossless": stored(
            FINE, functools.partial(ic.jpegls_encode, level=NEAR), ic.jpegls_decode
        ),
        "JPEG-LS, 501 steps": stored(COARSE, ic.jpegls_encode, ic.jpegls_decode),
        "WebP lossless, 501 steps": stored(COARSE, encode_webp, decode_webp),
        "HTJ2K lossless, 501 steps": stored(
            COARSE, functools.partial(ic.htj2k_encode, reversible=True), ic.htj2k_decode
        ),
        "zstd, 501 steps, slopes": stored(
            COARSE, encode_slopes, functools.partial(decode_slopes, shape=disparity.shape)
        ),
        "SZ3": (
            functools.partial(ic.sz3_encode, mode="abs", abs=error),
            functools.partial(ic.sz3_decode, **shape),
        ),
        "SPERR": (
            functools.partial(ic.sperr_encode, level=error, mode="pwe", numthreads=1),
            functools.partial(ic.sperr_decode, numthreads=1, **shape),
        ),
        "ZFP": (functools.partial(ic.zfp_encode, level=error, mode="accuracy"), ic.zfp_decode),
    }
    for effort in (1, 3, 7):
        encode = functools.partial(ic.jpegxl_encode, lossless=True, effort=effort, numthreads=1)
        decode = functools.partial(ic.jpegxl_decode, numthreads=1)
        found[f"JPEG XL effort {effort}, 501 steps"] = stored(COARSE, encode, decode)
    return found


def encode_png(values):
    return cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def decode_png(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def encode_webp(values):
    planes = np.stack([values >> 8, values & 255, np.zeros_like(values)], axis=-1)
    return ic.webp_encode(planes.astype(np.uint8), lossless=True, level=4)


def decode_webp(data):
    planes = ic.webp_decode(data)
    return planes[..., 0].astype(np.uint16) << 8 | planes[..., 1]


def encode_slopes(values):
    """Each value less its prediction from the left, above and above left, in two byte planes."""
    slopes = values.astype(np.int16)
    for axis in (0, 1):
        slopes = np.diff(slopes, axis=axis, prepend=np.int16(0))
    unsigned = ((slopes << 1) ^ (slopes >> 15)).astype("<u2")
    planes = unsigned.view(np.uint8).reshape(-1, 2).T.tobytes()
    return zstandard.ZstdCompressor(level=19).compress(planes)


def decode_slopes(data, shape):
    planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.uint8)
    low, high = planes.reshape(2, *shape).astype(np.int16)
    unsigned = high << 8 | low
    slopes = (unsigned >> 1) ^ -(unsigned & 1)
    return slopes.cumsum(0, np.int16).cumsum(1, np.int16)


def measure(disparity, turns):
    """Each codec's bytes, least seconds, and largest errors as shares of the map's range."""
    figures = {}
    for _ in range(turns):
        for name, (encode, decode) in codecs(disparity).items():
            start = time.perf_counter()
            data = encode(disparity)
            encoded = time.perf_counter()
            found = decode(data)
            decoded = time.perf_counter()
            if name not in figures:
                errors = np.abs(found.astype(np.float64) - disparity) / float(np.ptp(disparity))
                figures[name] = {"bytes": len(data), "encode_s": np.inf, "decode_s": np.inf}
                figures[name]["error"] = errors.max()
                figures[name]["error_at_edges"] = errors[at_edges(disparity)].max(initial=0)
            mine = figures[name]
            mine["encode_s"] = min(mine["encode_s"], encoded - start)
            mine["decode_s"] = min(mine["decode_s"], decoded - encoded)
    return figures


def at_edges(disparity):
    """bool [H, W]: pixels that differ from a neighbour by more than EDGE of the range."""
    least = EDGE * float(np.ptp(disparity))
    edges = np.zeros(disparity.shape, bool)
    down, right = (np.abs(np.diff(disparity, axis=axis)) > least for axis in (0, 1))
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def summary(name, figures):
    sizes = [one["bytes"] for one in figures]
    return {
        "codec": name,
        "mean_bytes": float(np.mean(sizes)),
        "median_bytes": float(np.median(sizes)),
        "p95_bytes": float(np.percentile(sizes, 95)),
        "max_bytes": max(sizes),
        "labels_above_goal": sum(size > GOAL_BYTES for size in sizes),
        "encode_ms": 1000 * float(np.median([one["encode_s"] for one in figures])),
        "decode_ms": 1000 * float(np.median([one["decode_s"] for one in figures])),
        "slowest_decode_ms": 1000 * float(max(one["decode_s"] for one in figures)),
        "largest_error": float(max(one["error"] for one in figures)),
        "largest_error_at_edges": float(max(one["error_at_edges"] for one in figures)),
    }


def print_table(rows):
    print(
        "\n| codec | mean kB | median | p95 | max | of PNG | encode ms | decode ms | error/bound |"
    )
    print("|---" * 9 + "|")
    for row in rows:
        sizes = [row[f"{name}_bytes"] / 1000 for name in ("mean", "median", "p95", "max")]
        cells = [f"{size:.1f}" for size in sizes] + [f"{row['share_of_png']:.2f}"]
        cells += [f"{row['encode_ms']:.0f}", f"{row['decode_ms']:.1f}"]
        print(f"| {row['codec']} | {' | '.join(cells)} | {row['largest_error'] / BOUND:.3f} |")


def machine():
    versions = {"numpy": np.__version__, "opencv": cv2.__version__, "imagecodecs": ic.__version__}
    versions["zstandard"] = zstandard.__version__
    return {"device": platform.machine(), "threads": 1, "versions": versions}


if __name__ == "__main__":
    main()
