"""benchmarks/scaling.py on few devices and processes: what it says holds, and stays so."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


def run(out, *options):
    command = [sys.executable, "benchmarks/scaling.py", f"--out={out}", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr
    return json.loads(out.read_text())


@pytest.mark.long
@pytest.mark.parametrize("fsdp", [1, 2, 4])
def test_a_training_step_sends_what_the_formula_says_on_any_number_of_devices(fsdp, tmp_path):
    options = ("--only=traffic", "--sizes=tiny", "--devices=8,16,32", f"--fsdp={fsdp}")
    rows = run(tmp_path / "scaling.json", *options)["traffic"]["rows"]
    assert [row["devices"] for row in rows] == [8, 16, 32]
    for row in rows:
        assert 0.9 < row["of CPU"] <= 1 and row["to fewest"] == pytest.approx(1, abs=0.02)
        assert row["all-to-all"] == 0 and (row["all-gather"] > 0) == (fsdp > 1)
        assert row["collective-permute"] == pytest.approx(row["CutMix"])


@pytest.mark.long
def test_a_process_does_as_much_beside_others_as_alone(tmp_path):
    found = run(tmp_path / "scaling.json", "--only=host", "--processes=1,4")["host"]
    assert [row["processes"] for row in found["rows"]] == [1, 4]
    assert 0.8 < found["rows"][1]["ratio to one"] < 1.2
