"""One's own data: a folder of images, or of images with depth or disparity maps.

`folder/NAME` for any NAME. There is nothing to download; what the folder may hold and how its
dataset.yaml describes it stands in docs/own_data.md. Without one, every image below --raw is taken,
unlabelled. Units, scale and invalid values are the owner's to say; 0, negative values, NaN and inf
are never valid.
"""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from dav.data import formats
from dav.data.containers import read_hdf5
from dav.data.frames import DEPTH_M, DISPARITY, Builder, Frame, Skipped, Target
from dav.data.framing import check_size, frame_of
from dav.data.layout import require
from dav.data.own import FILE, UNITS_M, digest, quantity_of, read_description, step_of
from dav.data.own_rows import Row, find_rows, name_rows
from dav.data.reading import read_bytes, reading
from dav.errors import ConfigError, DavError

NEAREST_M, FARTHEST_M = 1e-3, 1e4  # a median depth outside is a mistaken unit
LIKELY_M = (0.2, 200)
SCALES = (1, 256, 5000)  # common numbers of steps in a unit
LARGEST_STEP = 65534


def make(name):
    """The builder of data set `name`, folder/NAME. Raises ConfigError for an impossible name."""
    if not re.fullmatch(r"folder/[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(
            f"data set {name!r}: one's own data is called folder/NAME, of letters, digits, _ and -"
        )
    return Builder(name, "own", plan, read, keep_images=False, description=digest)


def plan(raw):
    """(id, image, kind, map, mask, sky, digest of dataset.yaml) by split, images in natural order
    or that of the table."""
    require(raw, "the folder with your images, and dataset.yaml if they have maps")
    splits = find_rows(raw, read_description(raw))
    rows = [row for rows in splits.values() for row in rows]
    names, said = iter(name_rows(rows)), digest(raw)
    return {
        split: [(next(names), r.image, r.kind, r.map, r.mask, r.sky, said) for r in rows]
        for split, rows in splits.items()
    }


def read(raw, item):
    """One image, with its map if it has one."""
    name, row = item[0], Row(*item[1:-1])
    description = read_description(raw)
    if row.kind:
        yield _labelled(Path(raw), name, row, description)
    else:
        yield _unlabelled(Path(raw) / row.image, name, described=bool(description.path))


def read_map(path, key=""):
    """A stored map of any known format, by its suffix → array [H, W] of its own type."""
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        raise DavError(f"{path} is a JPEG, which changes values; store maps as 16-bit PNG or .npy")
    if suffix not in READERS:
        raise DavError(f"{path}: maps may be {' '.join(READERS)}, not {suffix or 'without suffix'}")
    values = READERS[suffix](path, key)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise DavError(f"{path} holds {values.dtype} {values.shape}, not a map [H, W] of numbers")
    return values


def target_of(values, description, quantity, path, *, mask=None, sky=None):
    """Stored values [H, W] → Target, with `mask` and `sky` bool [H, W] where there are any."""
    whole = values.dtype.kind in "ui"
    if quantity != DISPARITY and values.dtype.itemsize == 1:
        raise DavError(
            f"{path} has 8 bits: 255 steps are too few for depth, and such files are pictures of "
            "depth more often than depth; export it as 16-bit PNG or float .npy"
        )
    valid = _valid(values, description)
    valid = valid if mask is None else valid & mask
    valid = valid if sky is None else valid & ~sky
    if whole and values[valid].size and values[valid].max() == 65535:
        raise DavError(
            f"{path} has pixels of 65535, the end of 16 bits: add it to {FILE} (invalid: 65535)"
        )
    step = step_of(description)
    measured = values[valid].astype(np.float64) * step
    if quantity == DEPTH_M and measured.size:
        _check_unit(float(np.median(values[valid])), step, path, description)
    scaled = np.zeros(values.shape, np.float32)
    scaled[valid] = measured
    exact = whole and (not measured.size or values[valid].max() <= LARGEST_STEP)
    return Target(quantity, scaled, valid & (scaled > 0), sky=sky, unit=step if exact else None)


def _labelled(raw, name, row, description):
    path = raw / row.map
    values = read_map(path, description.key)
    masks = {}
    for kind in ("mask", "sky"):
        if getattr(row, kind):
            masks[kind] = read_map(raw / getattr(row, kind)) != 0
            _check_mask(raw / getattr(row, kind), masks[kind].shape, path, values.shape)
    target = target_of(values, description, quantity_of(description, row.kind), path, **masks)
    check_size(path, values.shape, raw / row.image)
    if not target.valid.any():
        return Skipped(name, f"{row.map} has no valid pixel ({_range(values)})")
    return frame_of(name, raw / row.image, path, target)


def _check_mask(mask_path, shape, path, wanted):
    if shape != wanted:
        raise DavError(
            f"{mask_path} is {shape[1]}×{shape[0]}, the map {path} {wanted[1]}×{wanted[0]}"
        )


def _unlabelled(path, name, *, described):
    if not path.is_file():
        return Skipped(name, "a broken link, or not a file")
    with reading(path):
        content = path.read_bytes()
    if not described and _is_map(content):
        return Skipped(
            name,
            f"{path} is a grey image of 16 bits or more: a depth map? Describe which files are "
            f"images in {path.parent}/{FILE} or above (images: rgb/*.jpg); see docs/own_data.md",
        )
    return Frame(name, content)


def _is_map(content):
    try:
        with Image.open(io.BytesIO(content), formats=formats.IMAGES) as image:
            return image.mode in ("I", "F") or image.mode.startswith("I;16")
    except Exception:  # undecodable images are reported where they are decoded
        return False


def _valid(values, description):
    valid = np.isfinite(values) & (values > 0)
    valid &= (values >= description.invalid_below) & (values <= description.invalid_above)
    for marker in description.invalid:
        valid &= (
            values != values.dtype.type(marker) if values.dtype.kind == "f" else values != marker
        )
    return valid


def _check_unit(median, step_m, path, description):
    """Raises DavError, with likelier units, if the median depth cannot be true."""
    if NEAREST_M <= median * step_m <= FARTHEST_M:
        return
    likely = []
    for unit, scale in [("mm", 1), ("cm", 1), *(("m", scale) for scale in SCALES)]:
        depth_m = median * UNITS_M[unit] / scale
        if LIKELY_M[0] <= depth_m <= LIKELY_M[1]:
            likely.append(f"unit: {unit} with scale: {scale} gives {depth_m:.3g} m")
    said = f"unit: {description.unit}, scale: {description.scale:g}"
    raise DavError(
        f"{path}: with {said} of {description.path} its median depth is {median * step_m:.3g} m, "
        f"which cannot be; {'; '.join(likely) or 'no common unit fits: is it depth at all?'}"
    )


def _range(values):
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (
        f"values {finite.min():g} … {finite.max():g}" if finite.size else "nothing but NaN or inf"
    )


def _read_tiff(path, key):
    with reading(path), Image.open(io.BytesIO(read_bytes(path)), formats=("TIFF",)) as image:
        return np.asarray(image)


def _read_npz(path, key):
    arrays = formats.read_npz(path, *([key] if key else []))
    if len(arrays) != 1:
        raise DavError(f"{path} has {', '.join(arrays)}: say which in {FILE} (key: NAME)")
    return next(iter(arrays.values()))


def _read_hdf5(path, key):
    if not key:
        raise DavError(f"{path}: say which data set of the file it is in {FILE} (key: NAME)")
    return read_hdf5(path, key)


READERS = {
    ".png": lambda path, key: formats.read_steps(path),
    ".pgm": lambda path, key: formats.read_steps(path),
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": lambda path, key: formats.read_npy(path),
    ".npz": _read_npz,
    ".pfm": lambda path, key: formats.read_pfm(path),
    ".exr": lambda path, key: formats.read_exr(path, key or None),
    ".dpt": lambda path, key: formats.read_dpt(path),
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}
