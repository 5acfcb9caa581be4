"""What the processes of a job hold, from /proc: the samples of benchmarks/soak.py."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

SHARED = Path("/dev/shm")
KIB = 1024.0


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    second: float
    role: str
    pid: int
    pss_mib: float  # shared pages divided among those that share them
    threads: int
    files: int  # open descriptors
    mapped: int  # areas of files or shared memory; areas of its own count as memory
    memfds: int  # nameless shared memory that is mapped or open


class Watcher:
    """Samples the trees of processes below some roots, and remembers what was ever in them.

    roots: {pid: name}. A process's role is the name of its root, and beside the root what it does
    and its place among those alike.
    """

    def __init__(self, roots):
        self._roots, self._roles, self._now = roots, {}, []
        self.seen = {}  # pid: when it started, in ticks; a pid alone may be given again
        self.named = set()  # entries of /dev/shm that any of them had open or mapped
        self._before = shared_entries()

    def sample(self, second):
        """A Sample of every process that there is now; one that ends meanwhile is left out."""
        self._now = sorted(self._find())
        return list(_of_living(lambda *one: self._measure(second, *one), self._now))

    def own(self):
        """{role: MiB of its own, shared memory included} of the processes that there were at the
        last sample; cheap."""
        return dict(_of_living(_own, self._now))

    def left(self):
        """Processes, of all that were ever seen, that are still there."""
        return {
            self._roles[pid]: pid
            for pid, started in self.seen.items()
            if started_at(pid) == started
        }

    def left_shared(self):
        """What is in /dev/shm now and belonged to them; and what else is new there."""
        new = shared_entries() - self._before
        return sorted(new & self.named), sorted(new - self.named)

    def _find(self):
        """(pid, role) of all processes in the trees."""
        children = {}
        for pid in _numbers():
            if (fields := _stat(pid)) is not None:
                children.setdefault(int(fields[1]), []).append(pid)
        for root, name in self._roots.items():
            if started_at(root) is None:
                continue
            waiting = [root]
            while waiting:
                pid = waiting.pop()
                waiting += children.get(pid, [])
                yield pid, self._role(pid, name, is_root=pid == root)

    def _role(self, pid, name, *, is_root):
        if pid not in self.seen or self.seen[pid] != started_at(pid):
            self.seen[pid] = started_at(pid)
            kind = "" if is_root else f" {_kind(pid)}"
            others = sum(role.startswith(f"{name}{kind} ") for role in self._roles.values())
            self._roles[pid] = name if is_root else f"{name}{kind} {others}"
        return self._roles[pid]

    def _measure(self, second, pid, role):
        folder = Path(f"/proc/{pid}")
        rollup = dict(
            line.split()[:2] for line in (folder / "smaps_rollup").read_text().splitlines()[1:]
        )
        opened = [_link(path) for path in (folder / "fd").iterdir()]
        mapped = [line.split(maxsplit=5)[-1] for line in (folder / "maps").read_text().splitlines()]
        shared = {name for name in opened + mapped if name.startswith(f"{SHARED}/")}
        self.named |= {name.removesuffix(" (deleted)") for name in shared}
        return Sample(
            second=second,
            role=role,
            pid=pid,
            pss_mib=int(rollup["Pss:"]) / KIB,
            threads=_status(pid)["Threads"],
            files=len(opened),
            mapped=sum(name.startswith("/") for name in mapped),
            memfds=sum(name.startswith("/memfd:") for name in opened + mapped),
        )


def _of_living(measure, processes):
    """measure(pid, role) of those processes that do not end meanwhile."""
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
            yield measure(*process)


def _own(pid, role):
    """(role, MiB). Pages of mapped files are left out: they are the system's, who takes them away
    and gives them back as others need memory."""
    status = _status(pid)
    return role, (status["RssAnon"] + status["RssShmem"]) / KIB


def _status(pid):
    """{name: number} of those lines of /proc/PID/status that have one."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def shared_entries():
    """The paths in /dev/shm: shared memory and semaphores with names."""
    return {str(path) for path in SHARED.iterdir()} if SHARED.is_dir() else set()


def started_at(pid):
    """When a process started, in the kernel's ticks; None: there is none, or it has ended."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def _numbers():
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _stat(pid):
    """The fields of /proc/PID/stat after the name, or None."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _kind(pid):
    command = Path(f"/proc/{pid}/cmdline").read_text()
    return "resource tracker" if "resource_tracker" in command else "worker"


def _link(path):
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
