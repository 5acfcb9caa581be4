import io
import json
import math

import pytest

from dav.files import read_lines
from dav.runtime import telemetry
from dav.runtime.telemetry import Interval, MetricsLog, Progress, format_duration


def test_a_resumed_log_drops_what_will_be_done_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (10, 20, 30):
        log.write(step, "train", loss=1 / step)
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 40, "ki')
    log = MetricsLog(path, from_step=20)
    log.write(30, "train", loss=5.0)
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30] and lines[2]["loss"] == 5.0
    assert read_lines(path) == lines


def test_a_log_has_null_and_never_nan(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, "train", loss=None)
    with pytest.raises(ValueError):
        log.write(2, "train", loss=float("nan"))
    log.close()
    assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 1, "kind": "train", "loss": None}]


@pytest.mark.parametrize(
    "bad",
    [b"\0" * 9 + b"\n", b"\0\0\0{\n", b"\xff\xfe\n", b"\n", b"7\n", b'{"step": 20}\n', b'{"st\n'],
)
def test_of_a_damaged_log_what_stands_before_counts(tmp_path, bad):
    path, said = tmp_path / "metrics.jsonl", []
    path.write_bytes(b'{"step": 10, "kind": "train"}\n' + bad + b'{"step": 30, "kind": "train"}\n')
    log = MetricsLog(path, from_step=30, tell=said.append)
    log.write(40, "train")
    log.close()
    assert said == [f"{path} is damaged from line 2 on: only what stands before it counts"]
    assert [line["step"] for line in read_lines(path)] == [10, 40]


@pytest.fixture
def clock(monkeypatch):
    """Sets the time that intervals see."""
    now = [100.0]
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


def test_rates_leave_out_the_first_step_and_what_was_no_training(clock):
    interval = Interval()
    interval.wait(5.0)  # for the first batch
    clock(20)
    interval.add({"loss": 3.0})
    assert interval.step_seconds() is None and interval.data_wait() is None
    for at in (22, 24):
        clock(at)
        interval.wait(0.25)
        interval.leave_out(0.5)
        interval.save(0.5)
        interval.add({"loss": 1.0})
    assert interval.step_seconds() == pytest.approx(1.0)
    assert interval.data_wait() == pytest.approx(0.25)
    assert interval.saved_s() == 1.0 and interval.productive_s() == pytest.approx(1.5)
    assert interval.means() == {"loss": pytest.approx(5 / 3)}
    after = interval.following()
    clock(27)
    after.add({"loss": 7.0})
    assert after.step_seconds() == pytest.approx(3.0) and after.data_wait() == 0
    assert after.means() == {"loss": 7.0}


def test_percentiles_of_the_steps(clock):
    interval = Interval()
    assert interval.step_percentiles() is None
    at = 0.0
    for seconds in (50, 3, 1, 2, 4, 9):  # the first one compiles
        at += seconds
        clock(at)
        interval.add({"loss": 1.0})
    assert interval.step_percentiles() == pytest.approx((3, 9))
    assert interval.following().step_percentiles() is None


def test_a_figure_counts_where_it_is_finite(clock):
    interval = Interval()
    for loss, norm in ((2.0, math.nan), (math.inf, math.nan), (4.0, math.nan)):
        interval.add({"loss": loss, "grad_norm": norm})
    assert interval.means() == {"loss": 3.0, "grad_norm": None}


def test_plain_lines_of_a_resumed_job_keep_their_places():
    stream = io.StringIO()
    progress = Progress("student", 40, done=15, plain_every=10, stream=stream)
    for done in range(16, 41):
        progress.update(done)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["20/40", "30/40", "40/40"]


def test_plain_lines_come_now_and_then_and_at_the_end():
    stream = io.StringIO()
    progress = Progress("student", 25, plain_every=10, stream=stream)
    for done in range(1, 26):
        progress.update(done, "loss 0.5", per_item=12)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["10/25", "20/25", "25/25"]
    assert "loss 0.5" in lines[0] and "images/s" in lines[0] and lines[0].endswith("left")


def test_a_terminal_gets_one_live_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress("teacher", 3, stream=stream)
    for done in (1, 2, 3):
        progress.update(done)
    progress.close()
    assert stream.getvalue().count("\r") == 3 and stream.getvalue().count("\n") == 1


def test_durations_read_well():
    assert format_duration(12.2) == "12 s"
    assert format_duration(200) == "3 min 20 s"
    assert format_duration(9000) == "2 h 30 min"
