"""Small files that survive a kill: written whole or not at all, read line by line, checksums."""

import errno
import fcntl
import hashlib
import json
import os
import re
from pathlib import Path

from dav.errors import ConfigError, DavError

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm"}
    | {".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)

GONE = (errno.ENOENT, errno.ESTALE)


def if_there(read):
    """What read() gives of a file that other processes may replace or remove; None: it is gone.

    NFS and gcsfuse have an error of their own, ESTALE, for a file that was found and then replaced
    by another: that one is read then.
    """
    for again in (True, False):
        try:
            return read()
        except OSError as error:
            if error.errno not in GONE:
                raise
            if error.errno == errno.ENOENT or not again:
                return None


def local_path(text):
    """A path that a user has given, ~ being the home folder. Raises ConfigError for a bucket's
    address, which would name a folder of this machine here."""
    if re.match(r"[a-z][a-z0-9+.-]*:/", str(text)):
        raise ConfigError(
            f"{text} is no path; mount the bucket (gcsfuse, s3fs, …) and name the folder instead"
        )
    return Path(text).expanduser()


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

    Raises DavError(busy) if another process holds it, and DavError where there are no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DavError(busy) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        raise DavError(
            f"{getattr(file, 'name', 'that folder')}: its file system has no locks "
            f"({error.strerror}), by which processes keep out of each other's way; mount it with "
            "them (Lustre: -o flock, NFS: version 4)"
        ) from None


def write_lines(path, values):
    """Writes a file of JSON lines whole or not at all."""
    write_whole(path, "".join(json.dumps(value) + "\n" for value in values))


def read_lines(path):
    """The whole JSON lines of a file; none for a missing file. Raises DavError for damage."""
    try:
        return [json.loads(line.decode()) for line in _split(path)]
    except ValueError as error:
        raise DavError(
            f"{path} is damaged ({error}); restore it, or delete the folder it stands in"
        ) from None


def read_log(path, keys, tell):
    """The whole JSON lines of a log, dicts with at least `keys`, up to the first that is damaged:
    no run stops for it. tell(sentence) is called. None for a missing file."""
    found = []
    for number, line in enumerate(_split(path), 1):
        try:
            value = json.loads(line.decode())
        except ValueError:
            value = None
        if not (isinstance(value, dict) and value.keys() >= set(keys)):
            tell(f"{path} is damaged from line {number} on: only what stands before it counts")
            break
        found.append(value)
    return found


def _split(path):
    """The lines of a file as bytes, without one that a kill has torn; none for a missing file."""
    path = Path(path)
    content = if_there(lambda: path.read_bytes() if path.is_file() else None)
    return (content or b"").split(b"\n")[:-1]


def checksum(path):
    """SHA-256 of a file as hex; '' for a missing one."""

    def digest():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return if_there(digest) or ""


def walk(folder, fail):
    """os.walk through links too, in order, each real folder once, or loops never end; hidden
    files and folders left out. `fail` is called with the OSError of a folder that is unreadable."""
    seen = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = {name: os.path.realpath(os.path.join(here, name)) for name in folders}
        folders[:] = sorted(n for n in folders if not n.startswith(".") and real[n] not in seen)
        seen.update(real[name] for name in folders)
        yield here, folders, [name for name in files if not name.startswith(".")]
