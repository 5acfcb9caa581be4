"""Looking for what a published archive holds; what is missing is said with where it should be."""

from pathlib import Path

from dav.errors import DavError


def require(path, hint):
    """The path, if it is there; else DavError that names it, with `hint`: what should be there
    and how to obtain it."""
    path = Path(path)
    if not path.exists():
        raise DavError(f"{path} is missing: {hint}")
    return path


def require_some(folder, pattern, hint):
    """The sorted paths below `folder` that match the glob `pattern`, without hidden files, such as
    the shadow copies ._NAME that some systems add; DavError if there are none."""
    found = require(folder, hint).glob(pattern)
    paths = sorted(path for path in found if not path.name.startswith("."))
    if not paths:
        raise DavError(f"nothing matches {Path(folder) / pattern}: {hint}")
    return paths


def require_pair(path, partner, hint):
    """Raises DavError if `partner`, which belongs to `path`, is not there."""
    if not Path(partner).exists():
        raise DavError(
            f"{partner}, which belongs to {path}, is missing: a half-finished download? {hint}"
        )
    return partner


def grouped(items, size):
    """Consecutive lists of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]
