"""Images and the maps that belong to them in big raw trees: found by folder, held together by name.

Folders are listed once and no file is touched, so that trees of a million pairs are planned in
seconds. What is hidden, such as the shadow copies that some archivers add, is passed over.
"""

import os
from pathlib import Path

from dav.data.layout import require
from dav.errors import DavError


def folders_holding(raw, names, levels, hint):
    """Paths, relative to `raw` and sorted, of the folders that hold a folder of one of `names`.

    Looks at most `levels` folders deep, and not inside those it has found. Raises DavError, with
    `hint`, if there are none.
    """
    found = []
    for folder, inside, _ in _walk(raw, levels, hint):
        if not names.isdisjoint(inside):
            found.append(folder)
            inside.clear()
    if not found:
        wanted = " or ".join(sorted(names))
        raise DavError(f"no folder {wanted} below {raw}: {hint}")
    return sorted(found)


def files_below(raw, levels, hint):
    """(folder relative to `raw`, names of its files), both sorted, at most `levels` deep."""
    return sorted((folder, sorted(files)) for folder, _, files in _walk(raw, levels, hint))


def paired_stems(base, parts, hint, skip=()):
    """Sorted names, without suffix, of the files that stand in each of several folders.

    parts: (folder in `base`, suffix) of each kind of file. skip: endings of stems that are left
    out. Raises DavError for a missing folder, for folders without files, and for a file that
    stands in one of the folders and not in another.
    """
    found = [stems(Path(base) / folder, suffix, hint, skip) for folder, suffix in parts]
    everything = set().union(*found)
    for (folder, suffix), present in zip(parts, found, strict=True):
        if missing := everything - present:
            path = Path(base) / folder / (min(missing) + suffix)
            raise DavError(
                f"{path} is missing, and {len(missing) - 1} others there, though files of its name "
                f"stand beside it in {base}: a half-finished download? {hint}"
            )
    if not everything:
        raise DavError(f"{Path(base) / parts[0][0]} holds no *{parts[0][1]}: {hint}")
    return sorted(everything)


def stems(folder, suffix, hint, skip=()):
    """The set of file names in a folder that end in `suffix`, without it."""
    names = file_names(folder, hint)
    found = {name.removesuffix(suffix) for name in names if name.endswith(suffix)}
    return {stem for stem in found if not stem.endswith(tuple(skip))}


def file_names(folder, hint):
    """The set of names in a folder. Raises DavError, with `hint`, if it is not there."""
    try:
        return {name for name in os.listdir(require(folder, hint)) if not name.startswith(".")}
    except OSError as error:
        raise DavError(f"cannot list {folder} ({error.strerror}): {hint}") from None


def _walk(raw, levels, hint):
    """os.walk with relative paths, at most `levels` deep; clearing `inside` goes no deeper."""
    root = str(require(raw, hint))
    for folder, inside, files in os.walk(root, onerror=_stop, followlinks=True):
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__MACOSX")))
        relative = Path(folder).relative_to(root).as_posix()
        yield relative, inside, [name for name in files if not name.startswith(".")]
        if len(Path(relative).parts) >= levels:
            inside.clear()


def _stop(error):
    raise DavError(f"cannot list {error.filename}: {error.strerror}") from None
