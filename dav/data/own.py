"""dataset.yaml: what the files of one's own data set are and measure; docs/own_data.md explains
every key."""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path

from dav.data.frames import DEPTH, DEPTH_M, DISPARITY
from dav.errors import DavError
from dav.files import checksum

FILE = "dataset.yaml"
UP_TO_SCALE = "up_to_scale"
UNITS_M = {"mm": 0.001, "cm": 0.01, "m": 1.0}
# Keys that say what maps mean, and are nothing without maps.
ABOUT_MAPS = ("unit", "scale", "invalid", "invalid_below", "invalid_above", "key", "mask", "sky")


@dataclass(frozen=True)
class Description:
    """dataset.yaml, checked key by key. Patterns are globs relative to its folder."""

    path: str = ""  # of the file; "" where there is none
    images: str = ""
    depth: str = ""
    disparity: str = ""
    mask: str = ""  # not 0: valid
    sky: str = ""  # not 0: sky
    table: str = ""  # a CSV in place of patterns
    unit: str | float = ""  # one of UNITS_M, metres, UP_TO_SCALE, or "": not said
    scale: float = 1.0  # stored value = scale · unit
    invalid: tuple = ()  # stored values, beside 0, negative ones, NaN and inf
    invalid_below: float = -math.inf  # stored value
    invalid_above: float = math.inf
    key: str = ""  # array of .npz and .h5, channel of .exr
    held_out: float = 0.0  # share of the images, the last ones, that become split `test`
    given: tuple = ()  # the keys that the file has


def read_description(raw):
    """The Description of the folder `raw`; all defaults where it has no dataset.yaml.

    Raises DavError, naming file and key, for what cannot be meant.
    """
    path = Path(raw) / FILE
    if not path.exists():
        return Description()
    entries = _parse(path)
    for key in entries:
        if key not in PARSERS:
            near = difflib.get_close_matches(str(key), PARSERS, 1, 0.5)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(PARSERS)}"
            raise DavError(f"{path}: unknown key {key!r}; {meant}")
    values = {key: _value(path, key, value) for key, value in entries.items()}
    description = Description(path=str(path), given=tuple(entries), **values)
    _check_together(description)
    return description


def digest(raw):
    """Of what dataset.yaml says, "" without one: what was begun or made with another is another
    set."""
    return checksum(Path(raw) / FILE)[:16]


def quantity_of(description, kind):
    """What maps of `kind` ("depth", "disparity" or "": none) measure: DEPTH_M, DEPTH, DISPARITY or
    "". Raises DavError for keys that do not go with it."""
    needless = [key for key in ABOUT_MAPS if key in description.given]
    if not kind:
        if needless:
            raise _error(description, f"{needless[0]} is given, but neither depth nor disparity")
        return ""
    if kind == "disparity":
        if description.unit not in ("", UP_TO_SCALE):
            raise _error(
                description,
                f"unit: {description.unit} does not go with disparity, which is up to scale here; "
                "leave unit out, or store depth",
            )
        return DISPARITY
    if description.unit == "":
        raise _error(
            description,
            "unit is missing: what one stored step of depth is: mm, cm, m, a number of metres, or "
            f"{UP_TO_SCALE}; with scale: 5000 there are 5000 steps in a unit",
        )
    return DEPTH if description.unit == UP_TO_SCALE else DEPTH_M


def step_of(description):
    """What one stored step stands for: metres for depth with a unit, else one `scale`-th."""
    unit = description.unit
    unit_m = UNITS_M.get(unit, unit) if unit not in ("", UP_TO_SCALE) else 1.0
    return unit_m / description.scale


def _parse(path):
    """The file's mapping. Raises DavError for anything else, and for a key that stands twice."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, yaml.SafeLoader)
        entries = yaml.safe_load(text)
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise DavError(f"{path} is not YAML: {told}") from None
    if not isinstance(entries, dict):
        raise DavError(f"{path} should hold lines `key: value`; see docs/own_data.md")
    keys = [key.value for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise DavError(f"{path}: {key} stands there twice")
    return entries


def _value(path, key, value):
    try:
        return PARSERS[key](value)
    except (ValueError, OverflowError) as error:
        raise DavError(f"{path}: {key}: {value!r} {error}") from None


def _pattern(value):
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a pattern such as rgb/*.png")
    text = value.strip().removeprefix("./")
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"leads out of the folder; patterns are relative to that of {FILE}")
    return text


def _number(value):
    """YAML takes 1e-3 for text: numbers may come as such."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def _positive(value):
    number = _number(value)
    if number <= 0:
        raise ValueError("must be above 0")
    return number


def _unit(value):
    if value in (*UNITS_M, UP_TO_SCALE):
        return value
    try:
        return _positive(value)
    except ValueError:
        raise ValueError(f"is not mm, cm, m, a number of metres, or {UP_TO_SCALE}") from None


def _numbers(value):
    listed = value if isinstance(value, list) else [value]
    return tuple(_number(item) for item in listed if not _is_nan(item))


def _is_nan(value):
    """NaN and inf are always invalid; saying so does no harm."""
    text = str(value).lower().lstrip("+-.")
    return text in ("nan", "inf")


def _share(value):
    number = _number(value)
    if not 0 < number < 1:
        raise ValueError("must be a share above 0 and below 1, such as 0.1")
    return number


def _name(value):
    if not isinstance(value, str) or not value:
        raise ValueError("is not the name of an array or a channel")
    return value


PARSERS = {
    "images": _pattern,
    "depth": _pattern,
    "disparity": _pattern,
    "mask": _pattern,
    "sky": _pattern,
    "table": _pattern,
    "unit": _unit,
    "scale": _positive,
    "invalid": _numbers,
    "invalid_below": _number,
    "invalid_above": _number,
    "key": _name,
    "held_out": _share,
}


def _check_together(description):
    given = set(description.given)
    beside_table = [key for key in ("images", "depth", "disparity", "mask", "sky") if key in given]
    if "table" in given and beside_table:
        raise _error(
            description, f"table names every file; {beside_table[0]} must not be given beside it"
        )
    if {"depth", "disparity"} <= given:
        raise _error(description, "depth and disparity are both given; keep one")
    if given & {"depth", "disparity"} and "images" not in given:
        raise _error(description, "images is missing: the pattern of the maps' images")
    if description.invalid_below >= description.invalid_above:
        raise _error(description, "invalid_below must be less than invalid_above")
    if "table" not in given:
        quantity_of(description, kind_of(description))


def kind_of(description):
    """The kind of the maps that patterns name: "depth", "disparity" or "": none."""
    return "depth" if description.depth else "disparity" if description.disparity else ""


def _error(description, told):
    return DavError(f"{description.path}: {told}")
