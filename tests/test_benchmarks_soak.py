"""What benchmarks/soak.py concludes from, on made-up series and on a small tree of processes."""

import importlib.util
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

LIMIT = 32.0  # MiB an hour
SECONDS = np.arange(0, 24 * 60, 0.5)


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


soak_trend, soak_processes = load("soak_trend"), load("soak_processes")


def memory(seed, mib_per_hour, *, wander_mib=1.0):
    """RSS of a training process: steps that need 200 MiB for a moment, a base that wanders for
    minutes, and a leak."""
    rng = np.random.default_rng(seed)
    wander, base = [], 0.0
    for step in rng.normal(0, wander_mib * 0.1, len(SECONDS)):
        base = 0.995 * base + step
        wander.append(base)
    steps = 200 * (SECONDS % 1.7) / 1.7
    return 1000 + steps + np.array(wander) + mib_per_hour * SECONDS / 3600


@pytest.mark.parametrize("seed", range(6))
def test_a_leak_is_told_from_the_ups_and_downs_of_steps(seed):
    assert soak_trend.fit(SECONDS, memory(seed, 0)).verdict(LIMIT) == soak_trend.FLAT
    leaking = soak_trend.fit(SECONDS, memory(seed, 100))
    assert leaking.verdict(LIMIT) == soak_trend.GROWS
    assert abs(leaking.slope - 100) < 15


def test_the_interval_holds_the_slope_about_as_often_as_it_says():
    fits = [soak_trend.fit(SECONDS, memory(seed, 40)) for seed in range(80)]
    assert 0.88 < np.mean([one.low <= 40 <= one.high for one in fits]) < 1
    assert np.mean([one.high - one.low for one in fits]) < 20


def test_what_cannot_be_told_is_not_called_flat():
    noisy = soak_trend.fit(SECONDS, memory(0, 30, wander_mib=20))
    assert noisy.verdict(LIMIT) == soak_trend.UNCLEAR
    with pytest.raises(ValueError, match="too few"):
        soak_trend.fit(SECONDS[:600], memory(0, 0)[:600])


def test_the_least_of_each_window_counts_and_a_short_last_one_does_not():
    begins, least = soak_trend.least_of_windows([0, 1, 2, 3, 4], [5, 4, 9, 7, 0], 2)
    assert begins.tolist() == [0, 2] and least.tolist() == [4, 7]


@pytest.mark.parametrize(
    ("counts", "climbs"),
    [
        ([48, 62, 48, 49, 61, 49, 49, 62, 49], False),  # made for a moment, or once
        ([48] * 9, False),
        ([48, 62, 49, 49, 62, 50, 50, 63, 51], True),  # one more after each checkpoint
        (list(range(30)), True),
        ([], False),
    ],
)
def test_things_that_are_never_given_back_are_noticed(counts, climbs):
    assert soak_trend.has_climbed(counts) is climbs


PARENT = """
import mmap, os, subprocess, sys, threading
file = os.memfd_create("batches")
os.truncate(file, 4096)
memory = mmap.mmap(file, 4096)
threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "print('ready', flush=True); input()"])
input()
child.wait()
"""


def test_a_tree_of_processes_is_seen_and_what_is_left_of_it():
    root = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert root.stdout.readline() == "ready\n"
    watcher = soak_processes.Watcher({root.pid: "job"})
    samples = {sample.role: sample for sample in watcher.sample(1.0)}
    assert set(samples) == {"job", "job worker 0"}
    assert samples["job"].threads == 2 and samples["job worker 0"].threads == 1
    assert samples["job"].memfds == 3  # open, once more by mmap, and mapped
    assert samples["job"].files == samples["job worker 0"].files + 2
    assert 1 < watcher.own()["job"] < 100
    assert watcher.left() == {role: sample.pid for role, sample in samples.items()}
    root.kill()
    root.wait()
    assert list(watcher.left()) == ["job worker 0"]  # its parent's death does not end it
    root.stdin.close()
    os.kill(samples["job worker 0"].pid, 9)
    assert watcher.own().keys() <= {"job worker 0"}


def test_mapped_files_are_counted_and_memory_of_its_own_is_not(tmp_path):
    watcher = soak_processes.Watcher({os.getpid(): "this"})

    def mapped():
        return next(one.mapped for one in watcher.sample(0.0) if one.role == "this")

    before = mapped()
    with mmap.mmap(-1, 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        assert mapped() == before
    (tmp_path / "file").write_bytes(bytes(4096))
    with open(tmp_path / "file", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert mapped() == before + 1
    assert mapped() == before
