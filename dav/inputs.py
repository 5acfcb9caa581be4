"""From what a command line names to image files, and to the names of what is made of them."""

import glob
import hashlib
import itertools
import os
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import PurePath

from dav.errors import ConfigError
from dav.files import IMAGE_SUFFIXES as SUFFIXES
from dav.files import walk
from dav.images import shown

NAME_BYTES = 200  # of a name's last part; file systems allow 255, and endings are added


def find_images(inputs, *, leave_out=lambda path: False):
    """Files, folders and globs → [(absolute path, path below its input)], each file once.

    A file that is named counts whatever its suffix. Folders are searched recursively, through
    links too, for files with a known image suffix, in alphabetical order; hidden ones and those
    that `leave_out` is true for do not count. A glob, where no such file exists, stands for the
    files and folders it matches; `**` matches any depth. Raises ConfigError for an input that
    does not exist or holds no image.
    """
    found = {}
    for given in inputs:
        images = ((os.path.abspath(path), relative) for path, relative in _expand(given))
        images = {path: relative for path, relative in images if not leave_out(path)}
        if not images:
            raise ConfigError(
                f"{shown(given)} holds no image; known suffixes: {' '.join(sorted(SUFFIXES))}"
            )
        found |= {path: relative for path, relative in images.items() if path not in found}
    return list(found.items())


def name_maps(images, taken):
    """A name for each image's results, as {absolute path: name}: the image's path below its input
    without the suffix.

    Where two would share a name, both keep their suffix, or else the folders above their input.
    `taken` holds the names given before, {name: absolute path}; they stay.
    """
    known = {path: name for name, path in taken.items()}
    names = {path: known[path] for path, _ in images if path in known}
    used, waiting = set(taken), [image for image in images if image[0] not in names]
    for level in itertools.count():
        if not waiting:
            return {path: names[path] for path, _ in images}
        wanted = {path: _candidate(path, relative, level) for path, relative in waiting}
        counts = Counter(wanted.values())
        names |= {p: n for p, n in wanted.items() if counts[n] == 1 and n not in used}
        used.update(wanted.values())
        waiting = [image for image in waiting if image[0] not in names]


def _candidate(path, relative, level):
    """The next longer name: without suffix, with it, with one more folder, ..., numbered."""
    folders_above, keeps_suffix = divmod(level, 2)
    above = PurePath(path).parts[1 : -len(PurePath(relative).parts)]
    name = relative if keeps_suffix else os.path.splitext(relative)[0]
    name = os.path.join(*above[len(above) - min(folders_above, len(above)) :], name)
    if folders_above > len(above):
        name += f"-{folders_above - len(above) + 1}"
    folder, last = os.path.split(name)
    encoded = os.fsencode(last)
    if len(encoded) > NAME_BYTES:
        digest = hashlib.sha256(encoded).hexdigest()[:8]
        last = f"{encoded[:NAME_BYTES].decode(errors='ignore')}-{digest}"
    return os.path.join(folder, last)


def _expand(given):
    """(path, path below the input) of the files that one input stands for."""
    if os.path.isdir(given):
        yield from _walk(given, given)
    elif os.path.lexists(given):
        yield given, os.path.basename(given)
    elif glob.has_magic(given):
        yield from _match(given)
    else:
        raise ConfigError(f"no such file or folder: {shown(given)}")


def _match(pattern):
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), PurePath(pattern).parts)
    base = os.path.join("", *plain) or os.curdir
    suffixes = SUFFIXES | {os.path.splitext(pattern)[1].lower()}
    if "**" in PurePath(pattern).parts:  # glob itself would follow links round in circles
        matched = [path for path in _all_below(base) if _matches(path, pattern)]
    else:
        matched = sorted(glob.glob(pattern))
    for path in matched:
        if os.path.isdir(path):
            yield from _walk(path, base)
        elif os.path.splitext(path)[1].lower() in suffixes:
            yield path, _below(path, base)


def _all_below(folder):
    """All files and folders below a folder, each real folder once, hidden ones left out."""
    for here, folders, files in _folders(folder):
        yield from (os.path.join(here, name) for name in sorted([*folders, *files]))


def _matches(path, pattern):
    """Whether a path is what a pattern with ** means; ** is any number of folders, or none."""
    parts, wanted = PurePath(path).parts, PurePath(pattern).parts

    def match(parts, wanted):
        if not wanted:
            return not parts
        if wanted[0] == "**":
            return match(parts, wanted[1:]) or (bool(parts) and match(parts[1:], wanted))
        return bool(parts) and fnmatchcase(parts[0], wanted[0]) and match(parts[1:], wanted[1:])

    return match(parts, wanted)


def _walk(folder, base):
    """The image files of a folder and those in it."""
    for here, _, files in _folders(folder):
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                path = os.path.join(here, name)
                yield path, _below(path, base)


def _folders(folder):
    def fail(error):
        raise ConfigError(f"cannot read the folder {shown(error.filename)}: {error.strerror}")

    return walk(folder, fail)


def _below(path, base):
    """A path relative to its input; names of results must never lead out of their folder."""
    relative = os.path.relpath(path, base)
    return os.path.basename(path) if relative.startswith(os.pardir) else relative
