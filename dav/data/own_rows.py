"""Which files of one's own data set belong together, and to which split."""

import csv
import difflib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dav.data.own import kind_of, quantity_of
from dav.data.reading import reading
from dav.errors import DavError
from dav.files import IMAGE_SUFFIXES, walk

SPLITS = ("train", "val", "test")
COLUMNS = ("image", "depth", "disparity", "mask", "sky", "split")
WILDCARD = r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]"


@dataclass(frozen=True)
class Row:
    """One image and what belongs to it, as paths relative to the raw folder; "" for nothing."""

    image: str
    kind: str = ""  # of its map: "depth", "disparity" or "": none
    map: str = ""
    mask: str = ""
    sky: str = ""


def find_rows(raw, description):
    """{split: [Row]}, in order. Raises DavError, naming files or lines, for what is missing."""
    if description.table:
        splits = _by_table(Path(raw), description)
    elif description.images:
        splits = {"train": _by_patterns(Path(raw), description)}
    else:
        splits = {"train": [Row(path) for path in _files(raw) if _is_image(path)]}
    if not any(splits.values()):
        raise DavError(f"{raw} holds no image; known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}")
    if description.held_out:
        splits = _hold_out(splits, description)
    return {split: rows for split, rows in splits.items() if rows}


def name_rows(rows):
    """A unique id for each: its image's path without suffix, with it where two would share one."""
    stems = [os.path.splitext(row.image)[0] for row in rows]
    counts, images = Counter(stems), {row.image for row in rows}
    return [
        row.image if counts[stem] > 1 or stem in images else stem
        for row, stem in zip(rows, stems, strict=True)
    ]


def natural(path):
    """A key for sorting that puts frame_2 before frame_10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]


def match(pattern, path):
    """What the wildcards of a glob stand for in a path, as a tuple; None if it does not match."""
    found = re.fullmatch("".join(_expression(token) for token in _tokens(pattern)), path)
    return found and tuple(group or "" for group in found.groups())


def fill(pattern, parts):
    """The path in which the wildcards of a glob stand for `parts`: the inverse of match."""
    parts, path = iter(parts), ""
    for token in _tokens(pattern):
        text = next(parts) if _is_wild(token) else token
        path += text + "/" if token == "**/" and text else text
    return path


def _by_patterns(raw, description):
    kind = kind_of(description)
    wanted = {"images": description.images, kind: getattr(description, kind) if kind else ""}
    wanted |= {"mask": description.mask, "sky": description.sky}
    wanted = {key: pattern for key, pattern in wanted.items() if pattern}
    _check_wildcards(wanted, description)
    files = _files(raw)
    found = {
        key: {parts: path for path in files if (parts := match(pattern, path)) is not None}
        for key, pattern in wanted.items()
    }
    others = {path for key in found if key != "images" for path in found[key].values()}
    images = {parts: path for parts, path in found["images"].items() if path not in others}
    if not images:
        raise DavError(f"nothing below {raw} matches images: {wanted['images']}")
    for key in [key for key in wanted if key != "images"]:
        _check_partners(key, wanted, images, found[key], description)
    if kind:
        _check_surplus(kind, wanted, images, found[kind], description)
    rows = [
        Row(
            image,
            kind,
            *(found[key][parts] if key in found else "" for key in (kind, "mask", "sky")),
        )
        for parts, image in images.items()
    ]
    return sorted(rows, key=lambda row: natural(row.image))


def _check_wildcards(wanted, description):
    """Files belong together by what the wildcards stand for, so all patterns need the same."""
    for key, pattern in wanted.items():
        for token in _tokens(pattern):
            try:
                re.compile(_expression(token))
            except re.error:
                raise DavError(
                    f"{description.path}: {key}: {pattern}: no character fits {token}; ranges go "
                    "upwards, as in [a-z]"
                ) from None
    wild = {key: re.findall(WILDCARD, pattern) for key, pattern in wanted.items()}
    for key, pattern in wanted.items():
        if len(wild[key]) != len(wild["images"]):
            raise DavError(
                f"{description.path}: images: {wanted['images']} has {len(wild['images'])} "
                f"wildcards and {key}: {pattern} has {len(wild[key])}; what each stands for must "
                "be the same in both, or list the pairs in a table"
            )
    if not wild["images"] and len(wanted["images"].split("/")[-1].split(".")) == 1:
        raise DavError(
            f"{description.path}: images: {wanted['images']} names a folder, not its files; write "
            f"{wanted['images']}/*.png, for instance"
        )


def _check_partners(key, wanted, images, found, description):
    missing = [
        (image, fill(wanted[key], parts)) for parts, image in images.items() if parts not in found
    ]
    if missing:
        image, partner = min(missing)
        raise DavError(
            f"{description.path}: {len(missing)} of {len(images)} images have no {key}; the first "
            f"is {image}, which needs {partner}"
        )


def _check_surplus(key, wanted, images, found, description):
    surplus = [
        (path, fill(wanted["images"], parts))
        for parts, path in found.items()
        if parts not in images
    ]
    if surplus:
        path, image = min(surplus)
        raise DavError(
            f"{description.path}: {len(surplus)} of {len(found)} files of {key} have no image; the "
            f"first is {path}, which needs {image}; move them away, or list the pairs in a table"
        )


def _by_table(raw, description):
    path = raw / description.table
    lines = _table_lines(path)
    kind = next((kind for kind in ("depth", "disparity") if kind in lines[0][1]), "")
    quantity_of(description, kind)
    if description.held_out and "split" in lines[0][1]:
        raise DavError(f"{description.path}: held_out and the column split of {path}: keep one")
    splits, seen = {split: [] for split in SPLITS}, {}
    for number, cells in lines:
        where = f"{path}, line {number}"
        row = _table_row(raw, where, cells, kind)
        if row.image in seen:
            raise DavError(f"{where}: {row.image} stands in line {seen[row.image]} already")
        seen[row.image] = number
        split = cells.get("split") or "train"
        if split not in SPLITS:
            raise DavError(f"{where}: split {split!r} is not one of {', '.join(SPLITS)}")
        splits[split].append(row)
    return splits


def _table_lines(path):
    """[(line number, {column: text})] of a CSV with the known columns."""
    with reading(path), open(path, newline="", encoding="utf-8-sig") as file:
        table = csv.reader(file, strict=True)
        header = [name.strip() for name in next(table, [])]
        _check_header(header)
        lines = []
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DavError(
                    f"line {table.line_num} has {len(cells)} cells, the header {len(header)}"
                )
            values = (cell.strip() for cell in cells)
            lines.append((table.line_num, dict(zip(header, values, strict=True))))
    if not lines:
        raise DavError(f"{path} has no line but its header")
    return lines


def _check_header(header):
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise DavError("its cells are separated by ; or tabs; save it with commas")
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1, 0.5)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(COLUMNS)}"
            raise DavError(f"unknown column {name!r}; {meant}")
        if header.count(name) > 1:
            raise DavError(f"column {name} stands there twice")
    if "image" not in header:
        raise DavError(f"it has no column image; its first line should name {', '.join(COLUMNS)}")
    maps = {"depth", "disparity"} & set(header)
    if len(maps) == 2:
        raise DavError("it has the columns depth and disparity; keep one")
    if not maps and {"mask", "sky"} & set(header):
        raise DavError("it has mask or sky, but neither depth nor disparity")


def _table_row(raw, where, cells, kind):
    for column in ("image", kind) if kind else ("image",):
        if not cells[column]:
            raise DavError(f"{where}: {column} is empty")
    files = {name: cells.get(name, "") for name in ("image", kind, "mask", "sky")}
    for column, text in files.items():
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts:
            raise DavError(f"{where}: {column} {text} leads out of {raw}; make it relative to that")
        if text and not (raw / text).is_file():
            raise DavError(f"{where}: {column} {raw / text} is missing")
    return Row(
        files["image"], kind, files.get(kind, "") if kind else "", files["mask"], files["sky"]
    )


def _hold_out(splits, description):
    """The last share of the images becomes `test`: neighbours in a video resemble each other."""
    rows = splits["train"]
    count = max(1, round(description.held_out * len(rows)))
    if count >= len(rows):
        raise DavError(
            f"{description.path}: held_out: {description.held_out} of {len(rows)} images leaves "
            "none to train on"
        )
    return {"train": rows[:-count], "test": rows[-count:]}


def _files(raw):
    """All files below `raw`, hidden ones left out, as relative paths in natural order."""

    def fail(error):
        raise DavError(f"cannot read the folder {error.filename}: {error.strerror}")

    paths = (
        Path(here, name).relative_to(raw).as_posix()
        for here, _, names in walk(raw, fail)
        for name in names
    )
    return sorted(paths, key=natural)


def _is_image(path):
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _tokens(pattern):
    return re.findall(rf"{WILDCARD}|[^*?\[]+|\[", pattern)


def _is_wild(token):
    return bool(re.fullmatch(WILDCARD, token))


def _expression(token):
    if not _is_wild(token):
        return re.escape(token)
    if token.startswith("["):
        inside = token[1:-1].replace("\\", "\\\\")
        return f"([{'^' + inside[1:] if inside.startswith('!') else inside}])"
    return {"**/": r"(?:(.+)/)?", "**": r"(.*)", "*": r"([^/]*)", "?": r"([^/])"}[token]
