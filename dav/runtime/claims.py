"""Pieces of work that any number of processes share through a folder on a shared file system.

A process claims a piece by creating PIECE.claim, which the file system lets only one of them do
(O_EXCL), and touches the file as long as it lives. A claim that has not been touched for a lease is
stale, and so, at once, is one whose process is known to be gone because it was one of this machine.
Whoever finds a stale claim moves it aside, which again only one can do, and makes a new one.

Claims only save work. A process that was suspended for longer than its lease may work on what
another has taken over, so that finished pieces must be put in place by one rename, and must come
out the same whoever makes them. Then no more is asked of the file system:

- Local ones, Lustre and NFS from version 3 on: exclusive creation and renaming are atomic there.
  NFS caches attributes for up to a minute (acregmax): leases must be several minutes.
- Cloud Storage through gcsfuse: two mounts may both create a claim; the one that closes it last
  gets ESTALE, which counts as a claim lost. Its metadata cache must be off
  (metadata-cache:ttl-secs: 0), or processes do not see each other.

Ages are differences between times that the file system itself gave, of the claim and of a file that
this process has just touched: clocks of hosts do not matter on NFS, and by their skew elsewhere.
"""

import contextlib
import errno
import functools
import json
import os
import secrets
import socket
import threading
from pathlib import Path

from dav.files import GONE, if_there

BEATS = 5  # touches in a lease
LOST = (errno.EEXIST, *GONE)  # gone: its folder has just been removed


class Claims:
    """The claims of this process in `folder`. Use as a context manager: leaving releases them."""

    def __init__(self, folder, *, lease_s):
        self.me = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._folder, self._lease_s = Path(folder), lease_s
        self._held, self._lock, self._ended = set(), threading.Lock(), threading.Event()
        self._owner = json.dumps({"me": self.me, **_process(os.getpid())})
        self._clock = self._folder / f"{self.me}.clock"
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()
        for piece in list(self._held):
            self.release(piece)
        with contextlib.suppress(OSError):
            self._sweep()
        with contextlib.suppress(OSError):  # others may still be there
            self._folder.rmdir()

    def take(self, piece):
        """Claims a piece; returns whether it is this process's now."""
        path = self._path(piece)
        if not self._create(path) and not (self._clear_stale(path) and self._create(path)):
            return False
        with self._lock:
            self._held.add(piece)
        return True

    def release(self, piece):
        """Gives a piece back; does nothing to one that another process has taken over."""
        with self._lock:
            self._held.discard(piece)
        path = self._path(piece)
        if self._is_mine(path):
            if_there(path.unlink)

    def now(self):
        """The time as this file system tells it, in seconds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clock.touch()
        return self._clock.stat().st_mtime

    def _path(self, piece):
        return self._folder / f"{piece}.claim"

    def _create(self, path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except OSError as error:
            if error.errno not in LOST:
                raise
            return False
        try:
            with open(descriptor, "w") as file:
                file.write(self._owner)
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno not in LOST:
                raise
            return False
        return True

    def _clear_stale(self, path):
        """Whether a claim that another process had is out of the way."""
        try:
            owner, touched = path.read_text(), path.stat().st_mtime
            if not _is_gone(owner) and self.now() - touched < self._lease_s:
                return False
            aside = path.with_name(f"{path.name}.{self.me}")
            os.rename(path, aside)
            if aside.read_text() != owner:  # somebody else was quicker: it is his claim now
                os.rename(aside, path)
                return False
            aside.unlink()
        except OSError as error:
            if error.errno not in GONE:
                raise
        return True

    def _sweep(self):
        """Removes what processes that were killed have left beside their claims."""
        now = self.now()
        self._clock.unlink()
        for path in self._folder.iterdir():
            found = if_there(path.stat)
            if found and path.suffix != ".claim" and now - found.st_mtime > self._lease_s:
                if_there(path.unlink)

    def _is_mine(self, path):
        return if_there(path.read_text) == self._owner

    def _beat(self):
        while not self._ended.wait(self._lease_s / BEATS):
            with self._lock:
                held = list(self._held)
            for piece in held:
                with contextlib.suppress(OSError):  # the next beat may do better
                    if self._is_mine(self._path(piece)):
                        os.utime(self._path(piece))


def _process(number):
    """What tells a process from every other one, and where that can be known."""
    return {**_place(), "pid": number, "started": _started(number)}


@functools.cache
def _place():
    """Host, boot and PID namespace: containers of one machine do not see each other's processes."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "space": os.readlink(space) if os.path.lexists(space) else "",
    }


def _started(number):
    """When a process started, in the kernel's ticks; None: there is none of this number."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _is_gone(owner):
    """Whether the process of a claim is known to have ended; False where it cannot be known."""
    try:
        owner = json.loads(owner)
        here = all(owner[key] == value for key, value in _place().items())
        return here and all(_place().values()) and _started(owner["pid"]) != owner["started"]
    except (ValueError, KeyError, TypeError):
        return False  # just being written, or by a process that died in doing so
