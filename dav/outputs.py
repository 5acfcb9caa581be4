"""The files made of a predicted map, and the record of a folder of them.

A folder OUT holds, for an image called NAME:

    NAME_depth16.png        16-bit grey; disparity or depth_m = pixel · step; `kind` and `step` are
                            text chunks of the file. For metric depth the step is 1/256 m, as KITTI
                            has it; 0 is invalid, and depth ends at 65535/256 m.
    NAME.npy                the map as it is, float32 [H, W]
    NAME_color.png          8-bit RGB, near is warm or bright, over the map's 2nd to 98th percentile
    NAME_side_by_side.jpg   the photograph and the colours, at most PREVIEW_PX each

and predict.json, the settings that all of them were made with, and maps.jsonl, a line for each
image: {"map": NAME, "image": path seen from OUT, "saved": [kinds]}, with "size_bytes" and
"mtime_ns" of the photograph, by which a changed one is noticed.
"""

import contextlib
import io
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from dav import viz
from dav.errors import ConfigError, DavError
from dav.files import hold, read_json, read_lines, write_json, write_whole

ENDINGS = {
    "png16": "_depth16.png",
    "npy": ".npy",
    "color": "_color.png",
    "side_by_side": "_side_by_side.jpg",
}
STAMP = ("size_bytes", "mtime_ns")  # what stamp_of tells, as maps.jsonl calls it
COLORED = {"color", "side_by_side"}
STEPS = 65535
KITTI_STEP_M = 1 / 256
PREVIEW_PX = 2048  # long side; also what is held of a photograph while the network runs
JPEG_QUALITY = 92
RANGE_SAMPLES = 512  # a side, for the percentiles


@dataclass(frozen=True)
class Made:
    """One line of maps.jsonl, with an absolute path."""

    image: str
    saved: frozenset
    stale: frozenset = frozenset()  # kinds whose files are dav's too, but to be made anew
    stamp: tuple | None = None  # the image's stamp_of; older versions recorded none

    def void(self):
        """The same with nothing that counts as done."""
        return Made(self.image, frozenset(), self.saved | self.stale, self.stamp)

    def then(self, later):
        """Both as one; what was saved of the image as it was before it changed is stale."""
        saved, stale = later.saved | self.saved, later.stale | self.stale
        if None not in (self.stamp, later.stamp) and self.stamp != later.stamp:
            saved, stale = later.saved, (self.saved | stale) - later.saved
        return Made(self.image, saved, stale, later.stamp or self.stamp)


def encode(kind, values, preview, *, is_metric, colormap):
    """One result file's bytes from a map float32 [H, W] and the photograph's preview.

    The map is depth in metres if `is_metric`, else disparity. Raises DavError if it is not finite.
    """
    if not np.isfinite(values).all():
        raise DavError("its map is not finite; the weights are damaged, or too large for the dtype")
    if kind == "npy":
        file = io.BytesIO()
        np.save(file, values)
        return file.getvalue()
    if kind == "png16":
        return encode_png16(values, is_metric=is_metric)
    if kind == "color":
        return viz.encode_png(color_picture(values, is_metric=is_metric, colormap=colormap))
    colors = color_picture(values, is_metric=is_metric, colormap=colormap)
    colors = cv2.resize(colors, preview.shape[1::-1], interpolation=cv2.INTER_AREA)
    return viz.encode_jpeg(np.hstack([preview, colors]), JPEG_QUALITY)


def encode_png16(values, *, is_metric):
    """A map → a 16-bit PNG that says what its numbers mean; the error is at most half a step.

    Negative disparity becomes 0. Depth keeps apart from 0, which is invalid.
    """
    step = KITTI_STEP_M if is_metric else max(float(values.max()), 0.0) / STEPS
    pixels = np.rint(values.astype(np.float64) / (step or 1.0)).clip(0, STEPS)
    if is_metric:
        pixels = np.where(values > 0, pixels.clip(1), 0)
    text = PngImagePlugin.PngInfo()
    text.add_text("kind", "depth_m" if is_metric else "disparity")
    text.add_text("step", repr(step))
    file = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint16))
    image.save(file, "PNG", pnginfo=text, compress_level=3)
    return file.getvalue()


def decode_png16(file):
    """The inverse, by path or open file: map float32 [H, W], and whether it is depth in metres.

    Raises DavError for a PNG without those text chunks.
    """
    with Image.open(file) as image:
        pixels = np.asarray(image, np.float64)
        text = image.text
    if not {"kind", "step"} <= set(text):
        raise DavError(f"{file} does not say what its numbers mean; dav did not write it")
    return (pixels * float(text["step"])).astype(np.float32), text["kind"] == "depth_m"


def color_picture(values, *, is_metric, colormap):
    """A map float32 [H, W] → uint8 RGB [H, W, 3], near warm or bright; invalid depth is grey.

    Depth is drawn by its inverse, so that both kinds of map look alike.
    """
    valid = values > 0 if is_metric else np.ones(values.shape, bool)
    disparity = np.where(valid, 1 / np.where(valid, values, 1), 0) if is_metric else values
    rows, columns = (max(1, n // RANGE_SAMPLES) for n in values.shape)
    low, high = viz.disparity_range(disparity[::rows, ::columns], valid[::rows, ::columns])
    colormap = viz.COLORMAPS[colormap]
    return viz.colorize(disparity, low, high, valid=valid, colormap=colormap)


def make_preview(image):
    """uint8 RGB [H, W, 3] → the same, long side at most PREVIEW_PX."""
    scale = PREVIEW_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def result_path(out, name, kind):
    """Where one result of an image stands."""
    return os.path.join(out, name + ENDINGS[kind])


def stamp_of(path):
    """(size in bytes, time of change in ns) of a file; None where there is none."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns


def is_record(line):
    """Whether a line of a file called maps.jsonl is one that dav writes."""
    return (
        isinstance(line, dict)
        and all(isinstance(line.get(key), str) for key in ("map", "image"))
        and isinstance(line.get("saved"), list)
        and isinstance(line.get("stale", []), list)
        and all(kind in [*ENDINGS] for kind in (*line["saved"], *line.get("stale", ())))
    )


class ResultFinder:
    """Called with a path, tells whether it is a recorded result of any folder it stands in."""

    def __init__(self):
        self._recorded = {}

    def __call__(self, path):
        if not path.endswith(tuple(ENDINGS.values())):
            return False
        path = os.path.realpath(path)
        return any(path in self._results(str(parent)) for parent in Path(path).parents)

    def _results(self, folder):
        if folder not in self._recorded:
            lines = []
            with contextlib.suppress(DavError):  # no JSON; it may be anybody's
                lines = read_lines(os.path.join(folder, "maps.jsonl"))
            self._recorded[folder] = {
                os.path.join(folder, line["map"] + ENDINGS[kind])
                for line in filter(is_record, lines)
                for kind in (*line["saved"], *line.get("stale", ()))
            }
        return self._recorded[folder]


@contextlib.contextmanager
def claim(out):
    """Holds OUT for one process, creating it; if nothing came of it, it is removed again.

    Raises DavError if another process holds it.
    """
    os.makedirs(out, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        hold(folder, f"another process is writing into {out}; wait for it, or choose another --out")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(out)
    finally:
        os.close(folder)


def settings_of(options):
    """What results depend on, {name: value}, from the options weights, size_px, dtype, save and
    colormap; weights that change in place count as others, and colours only where they are saved.
    """
    weights, path = options.weights, Path(os.path.expanduser(options.weights))
    if os.path.exists(path):
        inside = path.iterdir() if path.is_dir() else ()
        newest = max(one.stat().st_mtime for one in (path, *inside))
        changed = datetime.fromtimestamp(newest).isoformat(" ", "seconds")
        weights = f"{path.resolve()} of {changed}"
    settings = {"weights": weights, "size_px": options.size_px or "as trained"}
    settings |= {"dtype": options.dtype, "aspect_buckets": options.aspect_buckets}
    if COLORED & set(options.save):
        settings["colormap"] = options.colormap
    return settings


def read_made(out, settings, *, overwrite):
    """The maps that OUT records, {name: Made}.

    Raises ConfigError if OUT was made with other settings, where with `overwrite` its record is
    void; and if it has files of others that are called as its own.
    """
    lines = read_lines(os.path.join(out, "maps.jsonl"))
    path = os.path.join(out, "predict.json")
    before = read_json(path) if os.path.exists(path) else settings
    is_ours = isinstance(before, dict) and "weights" in before
    if not (all(map(is_record, lines)) and is_ours):
        theirs = path if not is_ours else os.path.join(out, "maps.jsonl")
        raise ConfigError(f"{theirs} was not written by dav; choose another --out")
    differing = [k for k in settings if lines and before.get(k, settings[k]) != settings[k]]
    if differing and not overwrite:
        raise ConfigError(
            f"{out} holds maps made with "
            f"{', '.join(f'{key} {before[key]} instead of {settings[key]}' for key in differing)}; "
            "choose another --out, or --overwrite"
        )
    made = {}
    for line in lines:
        image = os.path.normpath(os.path.join(os.path.abspath(out), line["image"]))
        stamp = tuple(line[key] for key in STAMP if key in line) or None
        one = Made(image, frozenset(line["saved"]), frozenset(line.get("stale", ())), stamp)
        known = made.get(line["map"])
        made[line["map"]] = known.then(one) if known and known.image == image else one
    return {name: one.void() for name, one in made.items()} if differing else made


def is_made(out, name, path, kinds, made):
    """Whether all the wanted results of an image as it is now are there, by record and by file."""
    known = made.get(name)
    return (
        known is not None
        and known.image == path
        and known.stamp in (None, stamp_of(path))
        and known.saved.issuperset(kinds)
        and all(os.path.exists(result_path(out, name, kind)) for kind in kinds)
    )


def check_foreign(out, names, kinds, made):
    """Raises ConfigError if OUT has files that would be overwritten, but does not record them."""
    for name in names:
        known = made[name].saved | made[name].stale if name in made else ()
        for kind in kinds:
            if kind not in known and os.path.lexists(path := result_path(out, name, kind)):
                raise ConfigError(
                    f"{path} is there, but nothing says how it was made; choose another --out, or "
                    "--overwrite"
                )


@contextlib.contextmanager
def recording(out, settings, made):
    """Writes predict.json and maps.jsonl as they stand; yields record(name, path, stamp, kinds).

    Lines are added by single writes, so threads may record at the same time.
    """
    path = os.path.join(out, "predict.json")
    counts = any(one.saved for one in made.values())
    before = read_json(path) if counts and os.path.exists(path) else {}
    lines = [_line(out, n, one.image, one.stamp, one.saved, one.stale) for n, one in made.items()]
    write_whole(os.path.join(out, "maps.jsonl"), "".join(lines))
    write_json(path, before | settings)
    with open(os.path.join(out, "maps.jsonl"), "ab", buffering=0) as file:
        yield lambda *what: file.write(_line(out, *what).encode())


def _line(out, name, path, stamp, kinds, stale=()):
    line = {"map": name, "image": os.path.relpath(path, os.path.abspath(out))}
    line |= dict(zip(STAMP, stamp or (), strict=False))
    line |= {"saved": sorted(kinds)} | ({"stale": sorted(stale)} if stale else {})
    return json.dumps(line) + "\n"
