"""Real processes that are killed, disturbed or run out of disk while they prepare."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

SCRIPT = Path(__file__).with_name("prepare_tiny.py")
ROOT = Path(__file__).parent.parent.parent
PATH = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | PATH,
        start_new_session=True,
    )


def finish(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def children_of(pid):
    """The worker processes of a process."""
    whole = ["ps", "-ww", "--ppid", str(pid), "-o", "pid=,args="]  # lines are never cut short
    lines = subprocess.run(whole, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "spawn_main" in line]


def wait_for(process, arrived):
    """Until arrived(); the process must still be at work then."""
    deadline = time.monotonic() + 30
    while not arrived():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state not in "ZX"


def test_ten_kills_leave_the_bytes_of_an_undisturbed_run(tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 96)
    (raw / "0090.jpg").write_bytes((raw / "0001.jpg").read_bytes())
    (raw / "0050.jpg").write_bytes(b"broken")
    arguments = ("tiny/slow", f"--raw={raw}", "--processes=2")
    code, _, err = finish(*arguments, f"--out={tmp_path / 'whole'}")
    assert code == 0, err
    parts = tmp_path / "out/tiny/slow/1.0.0.incomplete/parts"
    rng, orphans, seen = random.Random(7), [], []
    for kill in range(10):
        process = start(*arguments, f"--out={tmp_path / 'out'}")
        wait_for(process, lambda least=2 * kill: len(list(parts.glob("*.json"))) >= least)
        time.sleep(rng.random() * 0.1)
        orphans += children_of(process.pid)
        process.kill()
        process.communicate()
        seen.append(len(list(parts.glob("*.json"))))
    assert len(set(seen)) > 5, "the kills must come at different moments of the work"
    code, out, err = finish(*arguments, f"--out={tmp_path / 'out'}")
    assert code == 0, err
    assert "94 (1 skipped, 1 duplicates" in out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    deadline = time.monotonic() + 10
    while any(map(is_alive, orphans)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in orphans if is_alive(pid)]


@pytest.mark.parametrize(
    ("send", "signal_number"),
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)],  # a terminal's goes to the workers too
)
def test_stopped_on_request_it_says_how_to_go_on(tmp_path, send, signal_number):
    raw = tiny.write_pictures(tmp_path / "raw", 60)
    arguments = ("tiny/slow", f"--raw={raw}", "--processes=2", f"--out={tmp_path / 'out'}")
    process = start(*arguments)
    wait_for(process, lambda: len(children_of(process.pid)) == 2)
    send(process.pid, signal_number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 75 and "the same command continues" in err
    assert err.count("\n") == 1
    assert finish(*arguments)[0] == 0


def test_a_second_process_is_told_to_wait(tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 60)
    arguments = ("tiny/slow", f"--raw={raw}", "--processes=1", f"--out={tmp_path / 'out'}")
    first = start(*arguments)
    wait_for(first, (tmp_path / "out/tiny/slow/1.0.0.incomplete").exists)
    code, _, err = finish(*arguments)
    assert code == 1 and "another process is preparing tiny/slow" in err
    first.communicate(timeout=60)
    assert first.returncode == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_leaves_nothing_that_counts_as_done(tmp_path, processes):
    raw = tiny.write_pictures(tmp_path / "raw", 60, size=(400, 500))
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        arguments = ("tiny", f"--raw={raw}", f"--processes={processes}", f"--out={small}")
        code, _, err = finish(*arguments)
        assert code == 1 and "no space left" in err and "Traceback" not in err
        assert not list(small.rglob("*.tmp")) and not (small / "tiny/1.0.0").exists()
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        assert finish(*arguments)[0] == 0
        assert finish("tiny", f"--raw={raw}", f"--out={tmp_path / 'whole'}")[0] == 0
        assert contents(small) == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_killed_worker_is_one_clear_message(tmp_path):
    raw = tiny.write_pictures(tmp_path / "raw", 60)
    arguments = ("tiny/slow", f"--raw={raw}", "--processes=2", f"--out={tmp_path / 'out'}")
    process = start(*arguments)
    wait_for(process, lambda: list((tmp_path / "out").rglob("parts/*.json")))
    victims = children_of(process.pid)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):  # the first one's death ends the others
            os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert victims and process.returncode == 1
    assert "a worker process was killed" in err and "Traceback" not in err
    assert finish(*arguments)[0] == 0
