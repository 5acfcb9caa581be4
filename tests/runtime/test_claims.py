"""Claims between threads and real processes, alive, dead, and silent."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from dav.runtime.claims import Claims

HOLD = """
import sys, time
from dav.runtime.claims import Claims
claims = Claims(sys.argv[1], lease_s=float(sys.argv[2])).__enter__()
print(claims.take("piece"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """other(lease_s) → a process that has claimed `piece`."""
    started = []

    def hold(lease_s):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "work"), str(lease_s)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "True\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_a_piece_is_one_process_s_until_it_gives_it_back(tmp_path):
    with (
        Claims(tmp_path / "work", lease_s=60) as mine,
        Claims(tmp_path / "work", lease_s=60) as his,
    ):
        assert mine.take("a") and not his.take("a") and his.take("b") and not mine.take("b")
        his.release("a")  # not his
        assert not his.take("a")
        mine.release("a")
        assert his.take("a")
    assert not (tmp_path / "work").exists()


def test_a_living_process_keeps_its_claim_and_a_dead_one_does_not(tmp_path, other):
    process = other(60)
    with Claims(tmp_path / "work", lease_s=60) as claims:
        assert not claims.take("piece")
        process.kill()
        process.wait()
        assert claims.take("piece")


def test_a_claim_that_is_touched_is_kept_longer_than_its_lease(tmp_path, other):
    process = other(1.0)
    with Claims(tmp_path / "work", lease_s=1.0) as claims:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert not claims.take("piece")
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGSTOP)  # as a suspended machine: alive, but silent
        time.sleep(1.3)
        assert claims.take("piece")


def elsewhere(owner):
    """The claim of a process whose machine is another."""
    return json.dumps(json.loads(owner) | {"host": "elsewhere"})


def test_a_process_of_another_machine_is_given_its_lease(tmp_path, other):
    process = other(60)
    process.kill()
    process.wait()
    path = tmp_path / "work" / "piece.claim"
    path.write_text(elsewhere(path.read_text()))
    with Claims(tmp_path / "work", lease_s=60) as claims:
        assert not claims.take("piece")
        os.utime(path, (time.time() - 61,) * 2)
        assert claims.take("piece")


def test_an_empty_claim_is_one_that_is_just_being_made(tmp_path):
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "piece.claim"
    path.touch()
    with Claims(tmp_path / "work", lease_s=60) as claims:
        assert not claims.take("piece")
        os.utime(path, (time.time() - 61,) * 2)
        assert claims.take("piece")


def test_a_claim_that_another_host_has_given_back_is_gone_or_stale(tmp_path, monkeypatch):
    """NFS and gcsfuse say ESTALE for what was removed after it had been found."""

    def stale(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with Claims(tmp_path, lease_s=60) as mine, Claims(tmp_path, lease_s=60) as his:
        assert his.take("a") and mine.take("b")
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_text", stale)
            assert not mine.take("a")
            mine.release("b")
        his.release("a")
        assert mine.take("a")


def test_of_many_that_find_a_stale_claim_one_gets_it(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    many = [Claims(folder, lease_s=60).__enter__() for _ in range(8)]
    for turn in range(30):
        path = folder / f"{turn}.claim"
        path.write_text("{}")
        os.utime(path, (time.time() - 61,) * 2)
        got, barrier = [], threading.Barrier(len(many))

        def take(claims, piece=str(turn), got=got, barrier=barrier):
            barrier.wait()
            if claims.take(piece):
                got.append(claims)

        threads = [threading.Thread(target=take, args=(claims,)) for claims in many]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        owners = [claims for claims in got if claims._is_mine(path)]
        assert len(owners) == 1, "a claim has one owner, whoever thinks he has it"
    for claims in many:
        claims.__exit__()
    assert not folder.exists()


def test_what_the_dead_have_left_goes_with_the_last(tmp_path):
    folder = tmp_path / "work"
    with Claims(folder, lease_s=60):
        for name, age_s in (("old.tmp", 61), ("new.tmp", 1)):
            (folder / name).touch()
            os.utime(folder / name, (time.time() - age_s,) * 2)
    assert [path.name for path in folder.iterdir()] == ["new.tmp"]
