"""MATLAB files of version 5 (MathWorks, "MAT-File Format"): numbers, text and cells of text.

SciPy's reader, otherwise the one to use, crashes the process or hangs for some damaged files.
"""

import math
import struct
import zlib

import numpy as np

from dav.errors import DavError

MATRIX, COMPRESSED = 14, 15
CELL, CHAR = 1, 4
COMPLEX = 0x0800
STORED = {  # what an element's data are stored as
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"},
    **{16: "u1", 17: "u2", 18: "u4"},  # UTF-8, 16, 32
}
CLASSES = {  # what an array's numbers are to MATLAB
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"},
    **{14: "i8", 15: "u8"},
}
ENCODINGS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
HEADER_BYTES = 128


def parse_mat5(content, names):
    """The file's bytes → the named variables: arrays of numbers with MATLAB's axes, at least two;
    str for text; list of str for cells of text. Raises DavError; ValueError and the like for
    damage."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise DavError("its header is damaged")
    held = {}
    for kind, body in _elements(content[HEADER_BYTES:], order):
        if kind == COMPRESSED:
            kind, body = next(_elements(zlib.decompress(body), order))
        if kind != MATRIX:
            raise DavError(f"it is damaged (an element of kind {kind} among its variables)")
        name, parse = _matrix(body, order)
        held[name] = parse
    for name in names:
        if name not in held:
            raise DavError(f"it has no variable {name!r}; it has {', '.join(filter(None, held))}")
    return {name: held[name]() for name in names}


def _elements(content, order):
    """(kind, data) of each element."""
    place = 0
    while place < len(content):
        kind, size = struct.unpack_from(order + "II", content, place)
        start, following = place + 8, place + 8 + size
        if kind >> 16:  # a small element: size and kind share a word, the data follow at once
            kind, size, start, following = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        elif kind != COMPRESSED:
            following += -size % 8
        if start + size > min(following, len(content)):
            raise DavError("it is truncated")
        yield kind, content[start : start + size]
        place = following


def _matrix(body, order):
    """A matrix element → its name, and a function that gives its value."""
    parts = _elements(body, order)
    flags = struct.unpack_from(order + "I", _next(parts))[0]
    shape = [int(size) for size in np.frombuffer(_next(parts), order + "i4")]
    if len(shape) < 2 or min(shape) < 0:
        raise DavError(f"it is damaged (an array of {shape})")
    name = _next(parts).decode("latin-1")
    return name, lambda: _value(parts, flags, shape, name, order)


def _value(parts, flags, shape, name, order):
    if flags & 0xFF == CELL:
        return [_cell(body, name, order) for _, body in _counted(parts, math.prod(shape), name)]
    if (flags & 0xFF != CHAR and flags & 0xFF not in CLASSES) or flags & COMPLEX:
        raise DavError(f"its {name!r} is neither numbers nor text")
    ((kind, data),) = _counted(parts, 1, name) if math.prod(shape) else [(2, b"")]
    values = np.frombuffer(data, order + STORED[kind])
    if flags & 0xFF == CHAR:
        return _text(kind, data, values, order)
    if values.size != math.prod(shape):
        raise DavError(f"its {name!r} should be of {shape} and holds {values.size} numbers")
    return values.astype(CLASSES[flags & 0xFF]).reshape(shape, order="F")


def _cell(body, name, order):
    _, parse = _matrix(body, order)
    text = parse()
    if not isinstance(text, str):
        raise DavError(f"its {name!r} has cells that are not text")
    return text


def _text(kind, data, values, order):
    if kind in ENCODINGS:
        endian = "" if kind == 16 else "-le" if order == "<" else "-be"
        return data.decode(ENCODINGS[kind] + endian)
    return "".join(map(chr, values))


def _counted(parts, count, name):
    found = list(parts)
    if len(found) != count:
        raise DavError(f"its {name!r} is damaged: {len(found)} parts, {count} expected")
    return found


def _next(parts):
    return next(parts, (0, b""))[1]
