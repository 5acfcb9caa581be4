"""A work folder belongs to one config and one job at a time."""

import contextlib
import json
from pathlib import Path

from dav.errors import ConfigError
from dav.files import hold, read_json, write_json
from dav.runtime.gathering import from_first


@contextlib.contextmanager
def claim(workdir, config):
    """Holds `workdir` while a job runs in it, and records its config (plain values). Of a job's
    processes, the first holds it for all of them; all must call this.

    Raises ConfigError if it was made with another config, DavError if another job holds it.
    """
    with contextlib.ExitStack() as held:
        from_first(lambda: held.enter_context(_hold(Path(workdir), config)))
        yield


@contextlib.contextmanager
def _hold(workdir, config):
    workdir.mkdir(parents=True, exist_ok=True)
    check_config(workdir, config)
    with open(workdir / "lock", "a") as lock:
        hold(
            lock,
            f"another process is working in {workdir}; wait for it, or choose another --workdir",
        )
        if not (workdir / "config.json").exists():
            write_json(workdir / "config.json", config)
        yield


def check_config(workdir, config):
    """Raises ConfigError if `workdir` was made with another config."""
    path = Path(workdir) / "config.json"
    if not path.exists():
        return
    differences = compare(flatten(read_json(path)), flatten(json.loads(json.dumps(config))))
    if differences:
        raise ConfigError(
            f"{workdir} was made with another config ({'; '.join(differences)}); choose another "
            "--workdir, or delete this one"
        )


def compare(before, after):
    """The differing keys of two flat dicts, as 'key: before → after'."""
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted({*before, *after})
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def flatten(tree, prefix=""):
    """Nested dicts → one dict with dotted keys."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
