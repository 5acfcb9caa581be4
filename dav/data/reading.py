"""What every reader of foreign files shares: one error for whatever goes wrong, naming the file."""

import contextlib
import stat
from pathlib import Path

from PIL import UnidentifiedImageError

from dav.errors import DavError

MAX_RATIO = 1100  # deflate, the commonest compression, never reaches it
FAILED_DOWNLOADS = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML message",
    b"version https://git-lfs": "a Git LFS pointer",
}
KINDS = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"PK\x03\x04": "a zip or npz archive",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"Pf": "a PFM map",
    b"PF": "a PFM map",
    b"P5": "a PGM image",
    b"P6": "a PPM image",
}


@contextlib.contextmanager
def reading(path):
    """Whatever goes wrong inside is told as one DavError that names the file."""
    try:
        yield
    except Exception as error:  # readers of foreign bytes raise nearly everything
        raise DavError(f"cannot read {path}: {_reason(error)}") from None


def read_bytes(path):
    """A regular file's content; refuses what a failed download leaves behind."""
    check_file(path)
    content = Path(path).read_bytes()
    start = content[:64].lstrip().lower()
    for mark, what in FAILED_DOWNLOADS.items():
        if start.startswith(mark):
            raise DavError(f"it is {what}, not data: download it again")
    return content


def check_file(path):
    """Raises DavError for anything but a regular file with something in it."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise DavError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a file")
    if not status.st_size:
        raise DavError("it is empty")


def kind_of(content):
    """What bytes look like, for messages."""
    for mark, what in KINDS.items():
        if content.startswith(mark):
            return what
    return "of an unknown kind"


def needs(library):
    """The error for a reader whose library is not installed."""
    return DavError(f"that takes {library}, which is not installed: pip install -e '.[data]'")


def _reason(error):
    if isinstance(error, DavError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image in a known format"
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "it is truncated"
    said = (str(error).splitlines() or [""])[0] or type(error).__name__
    return f"it is damaged or unreadable ({said})"
