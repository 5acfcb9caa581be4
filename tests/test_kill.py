"""A run that is killed again and again ends with the very bits of an undisturbed one."""

import json
import random
import signal
import time

import numpy as np
import pytest
from conftest import ROOT
from many import launcher, outcomes, saved, state_at, steps_told, wait_for

PAUSE_S = 0.05  # a step
STUDENT = ("student", "--config.batch.unlabelled=8", "--config.checkpoint_every=2")
SHORT = ("--config.objective.perturb=False", "--config.steps=24")
LONG = ("--config.steps=120",)
RESULTS = ROOT / "benchmarks" / "results" / "resume.json"


def disturb(launch, processes, workdir, kills, seed):
    """Kills all processes of a run so many times, then asks one of them to stop. Returns, for
    every life, the newest finished checkpoint at its end."""
    random_moment, left = random.Random(seed), []
    for number in range(kills):
        each, told = launch(processes, workdir), steps_told(workdir)
        if number % 4 == 3:  # while it starts
            time.sleep(random_moment.uniform(0, 6))
        else:
            wait_for(lambda told=told: len(steps_told(workdir)) > len(told), each)
            time.sleep(random_moment.uniform(0, 0.6))
        for process in each:
            process.kill()
        assert [code for code, *_ in outcomes(each)] == [-signal.SIGKILL] * processes
        left.append(saved(workdir))
    each, told = launch(processes, workdir), steps_told(workdir)
    wait_for(lambda: len(steps_told(workdir)) > len(told), each)
    each[-1].send_signal(signal.SIGTERM)
    for code, _, err in outcomes(each):
        assert code == 75 and "Traceback" not in err
    return [*left, saved(workdir)]


def prove(environment, folder, processes, kills, run):
    """Compares every number of the final states; returns what happened on the way."""
    steps = int(run[-1].partition("=")[2])
    with launcher(environment | {"PAUSE_S": str(PAUSE_S)}, *run) as launch:
        left = disturb(launch, processes, folder / "killed", kills, seed=processes)
        assert left[-1] < steps
        last = launch(processes, folder / "killed")
        straight = launch(processes, folder / "straight")
        for code, _, err in outcomes([*last, *straight]):
            assert code == 0, err
    assert steps_told(folder / "killed") == list(range(1, steps + 1))
    states = [state_at(steps, folder / name, *run) for name in ("killed", "straight")]
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)
    return {
        "processes": processes,
        "steps": steps,
        "checkpoint_after_each_kill_and_the_signal": left,
        "arrays_bit_equal": len(states[0]),
        "numbers_bit_equal": sum(leaf.size for leaf in states[0]),
    }


def test_killed_and_stopped_it_ends_bit_equal(environment, tmp_path):
    prove(environment, tmp_path, 1, 2, (*STUDENT, *SHORT))


@pytest.mark.long
def test_killed_twenty_times_and_stopped_it_ends_bit_equal(environment, tmp_path):
    rows = [
        prove(environment, tmp_path / str(processes), processes, 20, (*STUDENT, *LONG))
        for processes in (1, 2)
    ]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
