import io
import json

from dav.files import read_lines
from dav.runtime.telemetry import MetricsLog, Progress, format_duration


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
