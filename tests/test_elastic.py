"""Training shared by processes that stop, are killed, and are started again in other numbers."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from many import gate, launcher, losses, outcomes, saved, state_at, steps_told, wait_for

STEPS = 16
RUN = (
    "student",
    "--config.batch.unlabelled=8",
    "--config.objective.perturb=False",  # compiles in a third of the time
    f"--config.steps={STEPS}",
    "--config.checkpoint_every=4",
    "--config.keep_every=8",
)
SPLIT = "--config.mesh.fsdp=2"


@pytest.fixture(scope="module")
def launch(environment):
    with launcher(environment, *RUN) as run:
        yield run


def examples(workdir, processes):
    """{step: {kind: {row: id}}} of whole batches, as so many processes read their parts of them."""
    found = {}
    for process in range(processes):
        for line in Path(f"{workdir}.read-{process}").read_text().splitlines():
            step, number, ids = json.loads(line)
            if number == processes:
                for kind, rows in ids.items():
                    found.setdefault(step, {}).setdefault(kind, {}).update(rows)
    return {step: batch for step, batch in found.items() if len(batch["unlabelled"]) == 8}


@pytest.fixture(scope="module")
def straight(launch, tmp_path_factory):
    """A work folder in which two processes have trained undisturbed, its weights in two parts."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    for code, out, err in outcomes(launch(2, workdir, SPLIT)):
        assert code == 0, out + err
    return workdir


@pytest.fixture(scope="module")
def moved(launch, tmp_path_factory):
    """A work folder in which the same has been learned by two processes, of which one is lost, by
    two of which one is asked to stop, by one that is killed, and by four; and what those said."""
    workdir = tmp_path_factory.mktemp("moved") / "run"
    said = lose_one(launch, workdir), stop_one(launch, workdir), kill_it(launch, workdir)
    return workdir, (*said, outcomes(launch(4, workdir, SPLIT)))


def lose_one(launch, workdir):
    """While the other is in the middle of step 6, waiting for its part."""
    gate(workdir, 1).write_text("6")
    two = launch(2, workdir, SPLIT)
    wait_for(lambda: saved(workdir) == 4 and 5 in steps_told(workdir), two)
    two[1].kill()
    said = outcomes(two, timeout=60)
    gate(workdir, 1).unlink()
    return said


def stop_one(launch, workdir):
    """With a signal, soon after step 8."""
    for process in (0, 1):
        gate(workdir, process).write_text("9")
    two = launch(2, workdir, SPLIT)
    wait_for(lambda: saved(workdir) == 8 and 8 in steps_told(workdir), two)
    two[1].send_signal(signal.SIGTERM)
    for process in (0, 1):
        gate(workdir, process).unlink()
    return outcomes(two), saved(workdir)


def kill_it(launch, workdir):
    """Soon after step 12."""
    gate(workdir, 0).write_text("13")
    (one,) = launch(1, workdir)
    wait_for(lambda: saved(workdir) == 12 and 12 in steps_told(workdir), [one])
    one.kill()
    gate(workdir, 0).unlink()
    return outcomes([one])


def test_only_the_first_process_tells_but_each_saves_its_part(straight, moved):
    for workdir in (straight, moved[0]):
        assert steps_told(workdir) == list(range(1, STEPS + 1))
    parts = {path.name for path in (straight / "checkpoints" / "16" / "state").iterdir()}
    assert {"ocdbt.process_0", "ocdbt.process_1"} <= parts
    *_, (first, *others) = moved[1]
    assert "resuming at step 12" in first[1] and "16/16" in first[1]
    assert not any("student" in out for _, out, _ in others)


def test_a_lost_process_ends_the_other_with_a_clear_message(moved):
    (code, _, err), _ = moved[1][0]
    assert code == 1 and "Traceback" not in err
    assert "dav, process 0 of 2: another process of this run was lost" in err


def test_a_signal_to_one_process_stops_both_at_the_same_step(moved):
    each, stop = moved[1][1]
    assert stop in (9, 10, 11), each  # they have to ask each other
    for code, _, err in each:
        assert code == 75 and "Traceback" not in err
        assert f"student: stopped, and saved at step {stop} of 16" in err


def test_what_the_first_process_refuses_ends_all(straight, launch):
    each = outcomes(launch(2, straight, SPLIT, "--config.seed=5"))
    assert [code for code, *_ in each] == [2, 2]
    assert all("seed: 0 → 5" in err and "Traceback" not in err for *_, err in each)


def test_after_a_loss_the_same_processes_continue_bit_for_bit(straight, moved):
    assert losses(moved[0])[:9] == losses(straight)[:9]
    for one, other in zip(state_at(8, moved[0], *RUN), state_at(8, straight, *RUN), strict=True):
        np.testing.assert_array_equal(one, other)


def test_any_number_of_processes_reads_the_same_examples_in_the_same_order(straight, moved):
    whole, stop = examples(straight, 2), moved[1][1][1]
    assert sorted(whole) == list(range(STEPS))
    for processes, steps in ((2, range(stop)), (1, range(stop, 13)), (4, range(12, STEPS))):
        seen = examples(moved[0], processes)
        assert [seen[step] for step in steps] == [whole[step] for step in steps]


def test_any_number_of_processes_learns_the_same_but_for_rounding(straight, moved):
    np.testing.assert_allclose(losses(moved[0]), losses(straight), rtol=1e-5)
    assert min(abs(np.diff(losses(straight)))) > 1e-4  # other examples would show
    for one, other in zip(
        state_at(STEPS, moved[0], *RUN), state_at(STEPS, straight, *RUN), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
