"""Small files that survive a kill: written whole or not at all, read line by line, checksums."""

import fcntl
import hashlib
import json
import os
from pathlib import Path

from dav.errors import DavError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm"}
    | {".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)


def write_whole(path, content):
    """Writes a file, text or bytes, under a temporary name, then renames it.

    Where that fails, on a full disk for instance, the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path, value):
    """Writes a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def read_json(path):
    """Raises DavError for a damaged file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DavError(
            f"{path} is damaged ({error}); restore it, or delete the folder it stands in"
        ) from None


def hold(file, busy):
    """Locks an open file or folder for this process until it is closed.

    Raises DavError(busy) if another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DavError(busy) from None


def write_lines(path, values):
    """Writes a file of JSON lines whole or not at all."""
    write_whole(path, "".join(json.dumps(value) + "\n" for value in values))


def read_lines(path):
    """The whole JSON lines of a file; none for a missing file. Raises DavError for damage."""
    path = Path(path)
    if not path.is_file():
        return []
    try:
        return [json.loads(line.decode()) for line in _split(path)]
    except ValueError as error:
        raise DavError(
            f"{path} is damaged ({error}); restore it, or delete the folder it stands in"
        ) from None


def read_log(path, keys, say):
    """The whole JSON lines of a log, dicts with at least `keys`, up to the first that is damaged:
    no run stops for it. say() is told in a sentence. None for a missing file."""
    path, found = Path(path), []
    for number, line in enumerate(_split(path) if path.is_file() else [], 1):
        try:
            value = json.loads(line.decode())
        except ValueError:
            value = None
        if not (isinstance(value, dict) and value.keys() >= set(keys)):
            say(f"{path} is damaged from line {number} on: only what stands before it counts")
            break
        found.append(value)
    return found


def _split(path):
    """The lines of a file as bytes, without one that a kill has torn."""
    return path.read_bytes().split(b"\n")[:-1]


def checksum(path):
    """SHA-256 of a file as hex; '' for a missing one."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def walk(folder, fail):
    """os.walk through links too, in order, each real folder once, or loops never end; hidden
    files and folders left out. `fail` is called with the OSError of a folder that is unreadable."""
    seen = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = {name: os.path.realpath(os.path.join(here, name)) for name in folders}
        folders[:] = sorted(n for n in folders if not n.startswith(".") and real[n] not in seen)
        seen.update(real[name] for name in folders)
        yield here, folders, [name for name in files if not name.startswith(".")]
