"""A request to stop: by whom it may come, and what a second one does."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from dav.runtime.interrupts import stop_request


@pytest.fixture
def hangups():
    """They are not ignored, even if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_asks_and_only_ctrl_c_then_interrupts(number, hangups):
    before = signal.getsignal(number)
    with stop_request() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        os.kill(os.getpid(), signal.SIGTERM)  # as Slurm may, twice
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


def test_a_hangup_that_is_ignored_stays_ignored(hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop


WAITS = """
import sys, time
from dav.runtime.interrupts import stop_request
with stop_request() as stop:
    print("waits", flush=True)
    while not stop:
        time.sleep(0.01)
sys.exit(7)
"""


def test_it_is_heard_where_nobody_reads_the_answer():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", WAITS], cwd=ROOT, text=True, **pipes)
    process.stdout.readline()
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 7
    process.stdout.close()
