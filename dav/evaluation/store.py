"""A finished SetResult as bytes, so that a command that was stopped continues after it."""

import dataclasses

import msgpack

from dav.errors import DavError
from dav.evaluation.pictures import Kept
from dav.evaluation.results import SetResult

FORM = "evaluation 1"


def pack(result, key):
    """SetResult of Kept pictures, and the key of what it was made from → bytes."""
    every = {id(one): one for one in _kept(result)}
    place = {name: index for index, name in enumerate(every)}

    def places(group):
        return {model: [place[id(one)] for one in kept] for model, kept in group.items()}

    plain = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    plain |= {
        "best": places(result.best),
        "worst": places(result.worst),
        "samples": [place[id(one)] for one in result.samples],
    }
    kept = [{"id": one.id, "files": one.files, "figures": one.figures} for one in every.values()]
    return msgpack.packb({"form": FORM, "key": key, "result": plain, "kept": kept})


def unpack(content, key):
    """The SetResult, or None if it was made from something else or by another version.

    Raises DavError for damaged bytes.
    """
    try:
        held = msgpack.unpackb(content)
        if (held["form"], held["key"]) != (FORM, key):
            return None
        kept = [Kept(**one) for one in held["kept"]]
        plain = held["result"]
        plain["skipped"] = tuple(tuple(one) for one in plain["skipped"])
        plain["samples"] = tuple(kept[index] for index in plain["samples"])
        for name in ("best", "worst"):
            plain[name] = {m: tuple(kept[i] for i in places) for m, places in plain[name].items()}
        return SetResult(**plain)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DavError(f"stored results are damaged ({type(error).__name__})") from None


def _kept(result):
    yield from result.samples
    for group in (result.best, result.worst):
        for kept in group.values():
            yield from kept
