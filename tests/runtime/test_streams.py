"""What a job tells goes on, whoever has stopped reading."""

import subprocess
import sys

from conftest import ROOT

TELLS = """
import sys
from dav.runtime.telemetry import Progress
with Progress("train", 3) as progress:
    progress.update(1)
    sys.stdin.readline()
    progress.update(2)
    progress.note("a note")
    progress.update(3)
print("the last line")
sys.exit(7)
"""


def test_a_reader_that_has_gone_ends_no_work():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", TELLS], cwd=ROOT, text=True, **pipes)
    assert process.stdout.readline() == "train 1/3\n"
    process.stdout.close()
    process.stderr.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 7
