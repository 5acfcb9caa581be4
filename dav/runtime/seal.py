"""A folder of files that can tell whether it is whole: sealed once written, checked before reading.

The seal is a table of every file's size and SHA-256, by blocks, so that threads and processes share
the work whatever the files' sizes. It is written last: a folder without it was not finished.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dav.errors import DavError
from dav.files import write_json

NAME = "checksums.json"
BLOCK_BYTES = 64 * 2**20
PIECE_BYTES = 2**20
THREADS = 8


def is_sealed(folder):
    """Whether the folder was finished; says nothing of damage."""
    return (Path(folder) / NAME).is_file()


def seal(folder):
    """Reads every file below `folder` and notes its size and checksums there."""
    folder = Path(folder)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }
    found = iter(_checksums(folder, _blocks(sizes)))
    table = {
        name: {"bytes": size, "sha256": [next(found) for _ in _starts(size)]}
        for name, size in sizes.items()
    }
    write_json(folder / NAME, table)


def find_damage(folder, share=0, shares=1):
    """What is wrong with a sealed folder, a line for each damaged file; nothing if it is whole.

    Sizes are always checked; of the content only every `shares`-th block, from the `share`-th on.
    Raises DavError for a file that cannot be read.
    """
    folder = Path(folder)
    try:
        return _find_damage(folder, _read(folder / NAME), share, shares)
    except ValueError:
        return [f"{NAME} cannot be made sense of"]
    except OSError as error:
        raise DavError(f"cannot read {error.filename} ({error.strerror})") from error


def _find_damage(folder, table, share, shares):
    sizes = {name: _size(folder / name) for name in table}
    wrong = {
        name: f"{name} has {sizes[name]} of {entry['bytes']} bytes"
        for name, entry in table.items()
        if sizes[name] != entry["bytes"]
    }
    whole = {name: size for name, size in sizes.items() if name not in wrong}
    mine = list(_blocks(whole))[share::shares]
    for (name, start), found in zip(mine, _checksums(folder, mine), strict=True):
        if table[name]["sha256"][start // BLOCK_BYTES] != found:
            wrong[name] = f"{name} differs from its checksum"
    return list(wrong.values())


def _read(path):
    """The table of a seal. Raises ValueError for any other content."""
    table = json.loads(path.read_bytes())
    try:
        fits = all(len(e["sha256"]) == len(_starts(e["bytes"])) for e in table.values())
    except (AttributeError, KeyError, TypeError):
        fits = False
    if not fits or not table:
        raise ValueError("no table of checksums")
    return table


def _size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _starts(size):
    return range(0, size, BLOCK_BYTES)


def _blocks(sizes):
    """(file, first byte) of every block."""
    return ((name, start) for name, size in sizes.items() for start in _starts(size))


def _checksums(folder, blocks):
    """SHA-256 of blocks as hex, in order."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda block: _checksum(folder / block[0], block[1]), blocks))


def _checksum(path, start):
    digest, left, piece = hashlib.sha256(), BLOCK_BYTES, bytearray(PIECE_BYTES)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while left and (read := file.readinto(piece)):
            digest.update(memoryview(piece)[: min(read, left)])
            left -= min(read, left)
    return digest.hexdigest()
