"""The productive share of a run's time, over its starts."""

import json

import pytest

from dav.files import read_lines
from dav.runtime import goodput
from dav.runtime.goodput import Goodput


@pytest.fixture
def clock(monkeypatch):
    """Sets the time of day."""
    now = [1000.0]
    monkeypatch.setattr(goodput.time, "time", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1000.0 + seconds)


def write(workdir, *lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)


def test_all_that_is_no_step_counts_against_it(clock, tmp_path):
    first = Goodput(tmp_path, from_step=0)
    clock(10)
    first.add(4.0)
    assert first.share() == pytest.approx(0.4) and first.starts == 1


def test_time_between_starts_and_lost_steps_count_against_it(clock, tmp_path):
    Goodput(tmp_path, from_step=0)
    # Steps to 30 were logged, to 20 saved; 40 s later it is started again.
    steps = [{"kind": "train", "step": n, "productive_s": n * 2.0} for n in (10, 20, 30)]
    write(tmp_path, *steps)
    clock(100)
    again = Goodput(tmp_path, from_step=20)
    assert again.productive_s == 40 and again.starts == 2
    clock(120)
    again.add(20.0)
    assert again.share() == pytest.approx(60 / 120)
    starts = read_lines(tmp_path / "starts.jsonl")
    assert [line["step"] for line in starts] == [0, 20]
    assert [line["time"] for line in starts] == [1000, 1100]


def test_damage_to_what_it_is_told_by_is_said_and_the_rest_counts(clock, tmp_path):
    Goodput(tmp_path, from_step=0)
    with open(tmp_path / "starts.jsonl", "ab") as file:
        file.write(b"\0" * 50 + b"\n")
    write(tmp_path, {"kind": "train", "step": 10, "productive_s": 20.0}, ["no", "log"])
    clock(100)
    said = []
    again = Goodput(tmp_path, from_step=10, tell=said.append)
    assert again.starts == 2 and again.share() == pytest.approx(20 / 100)
    assert [line.split(" is damaged from line 2 on")[0] for line in said] == [
        str(tmp_path / "starts.jsonl"),
        str(tmp_path / "metrics.jsonl"),
    ]
    assert len(read_lines(tmp_path / "starts.jsonl")) == 2


def test_a_run_that_was_begun_without_it_starts_from_nothing(clock, tmp_path):
    write(tmp_path, {"kind": "train", "step": 10, "loss": 1.0})
    assert Goodput(tmp_path, from_step=10).productive_s == 0


def test_a_clock_set_back_gives_no_more_than_the_whole(clock, tmp_path):
    run = Goodput(tmp_path, from_step=0)
    clock(-50)
    run.add(5.0)
    assert run.share() == 1.0
