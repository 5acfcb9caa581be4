"""What sets of plain images have in common: archives, folders cut into ranges, broken downloads.

Volumes are the archives of a set, or the folders that they become when they are unpacked. All that
are there are read, of an archive and its unpacked folder the archive. Of a numbered series they
must be a run without gaps: a gap is taken for a download that failed. Whoever wants other ones
names them in a file archives.txt beside them, one a line, with or without suffix; then exactly
those are read, and all of them must be there.
"""

import itertools
import os
import re
from pathlib import Path

from dav.data.containers import iterate_tar
from dav.data.frames import Frame
from dav.errors import DavError

LIST = "archives.txt"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
UNFINISHED = (".aria2", ".crdownload", ".download", ".filepart", ".part", ".partial", ".tmp")
IMAGES_PER_ITEM = 8192  # of what is cut into ranges


def is_image(name):
    """Whether a path inside a set names an image; hidden files and macOS's additions do not."""
    parts = [part for part in name.split("/") if part != "."]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and name.lower().endswith(SUFFIXES)


def stem(name):
    """A file's name without folders and suffix."""
    return os.path.splitext(name.rsplit("/", 1)[-1])[0]


def one_of(raw, folders, hint):
    """The first of the relative `folders` that `raw` has; DavError if there is none."""
    for folder in folders:
        if (Path(raw) / folder).is_dir():
            return Path(raw) / folder
    expected = ", ".join(str(Path(raw) / folder) for folder in folders)
    raise DavError(f"there is none of {expected}: {hint}")


def volumes(folder, pattern, suffix, hint, series=()):
    """Paths of the archives `pattern` + `suffix` and unpacked folders `pattern` in `folder`.

    They are in the order of the published `series` of names without suffix, else sorted. Raises
    DavError if there is none, for unfinished downloads, for gaps, for what archives.txt lists in
    vain.
    """
    refuse_unfinished(folder)
    archives, unpacked = {}, {}
    for entry in entries(folder):
        name = entry.name.removesuffix(suffix)
        packed = name != entry.name
        if re.fullmatch(pattern, name) and packed != entry.is_dir():
            (archives if packed else unpacked)[name] = folder / entry.name
    there = unpacked | archives
    if not there:
        raise DavError(f"{folder} has none of the set's archives or folders: {hint}")
    found = [there[name] for name in _wanted(folder, there, series)]
    for path in found:
        if path.is_dir() and (series or any(entries(path))):  # a class may be empty
            require_images(path)
    return found


def refuse_unfinished(folder):
    """Raises DavError if a download into `folder` has not come to its end."""
    names = sorted(entry.name for entry in entries(folder) if entry.name.endswith(UNFINISHED))
    if names:
        raise DavError(
            f"{folder / names[0]} is left of a download that is not finished: finish it, or "
            "remove this file and what belongs to it"
        )


def entries(folder):
    """What stands in a folder, as os.scandir gives it."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError as error:
        raise DavError(f"cannot list {folder}: {error.strerror}") from None


def tar_frames(path, part=0, parts=1, prefix=""):
    """Frames of a tar's images, ids `prefix` + file name; of `parts` equal parts the given one.

    Each part reads the whole archive, and so notices a broken one: DavError.
    """
    index = 0
    for name, content in iterate_tar(path):
        if is_image(name):
            if index % parts == part:
                yield Frame(prefix + stem(name), content)
            index += 1


def folder_frames(folder, prefix=""):
    """Frames of the images that stand in a folder, by name; ids `prefix` + file name."""
    for name in image_names(folder):
        yield Frame(prefix + stem(name), read_image(folder / name))


def ranges(raw, folder, per_item=IMAGES_PER_ITEM):
    """A folder's images cut into items of nearly equal size, at most `per_item` images each:
    [(folder below raw, first name, last name, count), …] in order of names."""
    names = image_names(folder)
    number = -(-len(names) // per_item)
    cuts = [len(names) * place // number for place in range(number + 1)] if number else []
    place = folder.relative_to(raw).as_posix()
    return [
        (place, names[start], names[end - 1], end - start)
        for start, end in itertools.pairwise(cuts)
    ]


def range_frames(raw, item, prefix=""):
    """Frames of one item of `ranges`; DavError if the folder has changed since."""
    place, first, last, count = item
    folder = Path(raw) / place
    names = image_names(folder, first, last)
    if len(names) != count:
        raise DavError(
            f"{folder} has {len(names)} images from {first} to {last}, and had {count} when the "
            "work was planned: restore them, or prepare the set anew"
        )
    for name in names:
        yield Frame(prefix + stem(name), read_image(folder / name))


def image_names(folder, first="", last=None):
    """Sorted names of the images in a folder, from `first` to `last`."""
    return sorted(
        entry.name
        for entry in entries(folder)
        if first <= entry.name
        and (last is None or entry.name <= last)
        and is_image(entry.name)
        and entry.is_file()
    )


def has_images(folder):
    """Whether images stand in a folder itself."""
    return any(is_image(entry.name) and entry.is_file() for entry in entries(folder))


def require_images(folder):
    """Raises DavError for an unpacked folder without images, which would be lost unnoticed."""
    if not has_images(folder):
        raise DavError(
            f"{folder} holds no image: half unpacked, or into one more folder? Its images must "
            "stand in it directly"
        )


def read_image(path):
    """A file's bytes, whatever they are: preparing lists what cannot be decoded."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DavError(f"cannot read {path}: {error.strerror}") from None


def _wanted(folder, there, series):
    """Names in order; DavError for those that are missing."""
    listed = _listed(folder)
    if listed is not None:
        missing = [name for name in listed if name not in there]
        if missing or not listed:
            raise DavError(f"{folder / LIST} lists {_some(missing)}: not in {folder}")
        return listed
    if not series:
        return sorted(there)
    places = [place for place, name in enumerate(series) if name in there]
    run = series[places[0] : places[-1] + 1]
    missing = [name for name in run if name not in there]
    if missing:
        raise DavError(
            f"{folder} lacks {_some(missing)} between {run[0]} and {run[-1]}: download what is "
            f"missing, or list the ones to read, one a line, in {folder / LIST}"
        )
    return list(run)


def _listed(folder):
    """The names in archives.txt, without suffix; None if there is no such file."""
    path = folder / LIST
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(line.strip().split(".")[0] for line in lines if line.strip()))


def _some(names):
    shown = ", ".join(names[:5]) or "nothing"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
