"""Labelling by real processes that are killed, suspended, stopped and run out of disk."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import label_data
import pytest
from conftest import ROOT

from dav import label, label_set
from dav.data import label_shards, sources
from dav.errors import DamagedData

TIMEOUT_S = 240
SHARDS, LEASE_S = 16, 3.0


class Herd:
    """Processes of `python -m dav.main --job=label` on the data set of label_data.py."""

    def __init__(self, root, environment):
        self.root, self._logs = root, root / "logs"
        self._logs.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "label_herd.py"],
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running = {}

    def _ask(self, **command):
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def start(self, workdir, *options, place=0, pause_s=0.0):
        """Starts a process; returns its number."""
        log = self._logs / f"{len(list(self._logs.iterdir()))}.log"
        log.touch()  # the next one must have another
        arguments = [
            "--config=configs/student.py",
            "--job=label",
            f"--workdir={workdir}",
            f"--config.data.root={self.root / 'data'}",
            "--config.data.unlabelled=('tiny',)",
            f"--config.teacher_weights={self.root / 'teacher.safetensors'}",
            "--config.label_short_side_px=112",
            f"--config.label_lease_s={LEASE_S}",
            *options,
        ]
        number = self._ask(start=arguments, log=str(log), place=place, pause_s=pause_s)
        self.running[number] = log
        return number

    def wait(self, number):
        """The exit code of a process, and all it said."""
        code = self._ask(wait=number)
        return code, self.running.pop(number).read_text()

    def logs(self):
        """What the running processes have said is in these files."""
        return list(self.running.values())

    def close(self):
        for number in self.running:
            os.kill(number, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(timeout=30)


@pytest.fixture(scope="module")
def herd(tmp_path_factory, environment):
    """A Herd and its data set."""
    root = tmp_path_factory.mktemp("herd")
    label_data.make(root, SHARDS)
    herd = Herd(root, environment)
    yield herd
    herd.close()


@pytest.fixture(scope="module")
def undisturbed(herd, tmp_path_factory):
    """A work folder in which one process has labelled, with a worker that encodes, and what it
    said."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    code, said = herd.wait(herd.start(workdir, "--config.data.workers=1"))
    assert code == 65, said
    return workdir, said


def folder_of(workdir):
    return workdir / "labels" / "tiny" / "train"


def finished(workdir):
    return sorted(folder_of(workdir).glob("manifest/*.json"))


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def contents(workdir):
    """What a labelling leaves: shards as bytes, what is written of them without what was measured,
    and what was listed as damaged."""
    folder = folder_of(workdir)
    lines = {path.name: json.loads(path.read_text()) for path in folder.glob("manifest/*.json")}
    assert all(line.pop("measured")["seconds"] >= 0 for line in lines.values())
    damaged = {path.name: path.read_bytes() for path in folder.glob("damaged/*.json")}
    return {p.name: p.read_bytes() for p in folder.glob("tiny-train*")}, lines, damaged


def check_whole(workdir, root, shards=SHARDS):
    """Every record that can be read has one label, the damage is listed, nothing else is there."""
    folder = folder_of(workdir)
    counts = sources.shard_counts(root / "data", "tiny", "train")
    features = sources.read_features(root / "data", "tiny", "train")
    without = []
    for number, (path, count) in enumerate(counts.items()):
        if number == label_data.UNREADABLE:
            assert not (folder / path.name).exists()
            continue
        examples = sources.open_shard(path, count, features)
        opened = label_shards.open_labels(folder, {path.name: count})
        for index in range(count):
            label = opened[index]
            assert label["id"] == examples[index]["id"].decode()
            if "reason" in label:
                without.append((number, index))
    assert without == [(number, index) for number, (index, _) in label_data.BROKEN.items()]
    assert len(finished(workdir)) == shards - 1
    merged = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert len(merged) == shards - 1
    names = {path.name for path in folder.iterdir()}
    assert names - {"manifest", "manifest.jsonl", "damaged"} == {
        path.name for number, path in enumerate(counts) if number != label_data.UNREADABLE
    }


def test_one_process_labels_all_it_can_and_names_what_it_cannot(herd, undisturbed):
    workdir, said = undisturbed
    check_whole(workdir, herd.root)
    assert re.search(r"labels 60/64 .*images/s", said)
    assert "all 64 images: " in said and " device-hours" in said
    assert "dav: 1 image shard could not be read" in said and "00006-of-00016" in said
    assert "--job=prepare" in said and "Traceback" not in said
    shard, line = next(
        (p.name, json.loads(p.read_text())) for p in finished(workdir) if "-00001-of" in p.name
    )
    assert [(f["index"], f["id"]) for f in line["failed"]] == [(2, "00006")]
    assert line["shard"] + ".json" == shard and "cannot be decoded" in line["failed"][0]["reason"]


def disturb(herd, workdir, rng, *, shards, kills, disk, pause_s):
    """Four processes label in `workdir`; `kills` times one is killed at a random moment and
    started again, one is suspended for longer than its lease, and once the disk is full for a
    while. Returns [(exit code, what was said)] of those that came to an end."""
    herded = [herd.start(workdir, place=place, pause_s=pause_s) for place in range(4)]
    wait_until(lambda: finished(workdir))
    suspended, until = herded.pop(), time.monotonic() + LEASE_S + 1
    os.kill(suspended, signal.SIGSTOP)
    for turn in range(kills):
        wait_until(lambda least=turn / kills * 0.7 * shards: len(finished(workdir)) >= least)
        time.sleep(rng.random() * pause_s)
        victim = herded.pop(rng.randrange(len(herded)))
        os.kill(victim, signal.SIGKILL)
        assert herd.wait(victim)[0] == -signal.SIGKILL
        assert len(finished(workdir)) < shards, "the kills must come in the middle of the work"
        herded.append(herd.start(workdir, place=turn, pause_s=pause_s))
        if turn == kills // 2 and disk:
            disk.fill()
            wait_until(lambda: any("waiting up to" in log.read_text() for log in herd.logs()))
            disk.make_room()
    time.sleep(max(0, until - time.monotonic()))
    os.kill(suspended, signal.SIGCONT)
    return [herd.wait(number) for number in [*herded, suspended]]


class Disk:
    """A small file system of its own, or none where none can be mounted."""

    def __init__(self, path):
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path]
        self.mounted = not subprocess.run(mount, capture_output=True).returncode
        self._path, self._filler = path, path / "filler"

    def __bool__(self):
        return self.mounted

    def fill(self):
        with open(self._filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def make_room(self):
        self._filler.unlink()

    def close(self):
        if self.mounted:
            subprocess.run(["umount", self._path], check=True)


def check_one_error(ended):
    """Who has found the damaged shard, or was started again since and has looked anew, names it;
    the others know of it. None is to be started again."""
    assert {65} <= {code for code, _ in ended} <= {0, 65}, ended
    for code, said in ended:
        assert said.count("1 image shard could not be read") == 1, said
        assert ("dav: " in said) == ("--job=prepare" in said) == (code == 65), said
        assert "Traceback" not in said


def test_only_the_process_that_found_damage_ends_with_an_error(capsys):
    a, b = Path("a-00001"), Path("b-00002")
    sets = [label_set.UnlabelledSet(name, Path(), "", None, {}, 0, None) for name in ("one", "two")]
    label.tell_damage(sets)
    sets[0].damaged[a] = "torn"
    label.tell_damage(sets)
    assert "1 image shard could not be read; the process that found" in capsys.readouterr().out
    sets[1].damaged[b] = "burnt"
    sets[1].found.append(b)
    with pytest.raises(DamagedData, match="2 image shards .* first is b-00002: burnt. Run --job"):
        label.tell_damage(sets)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "small")
    yield disk
    disk.close()


def test_kills_a_suspension_and_a_full_disk_change_no_byte(herd, undisturbed, disk, tmp_path):
    """The quick form of the proof below."""
    workdir = tmp_path / "small"
    rng = random.Random(3)
    ended = disturb(herd, workdir, rng, shards=SHARDS, kills=2, disk=disk, pause_s=0.8)
    assert len(ended) == 4
    check_one_error(ended)
    check_whole(workdir, herd.root)
    assert contents(workdir) == contents(undisturbed[0])


def test_asked_to_stop_it_gives_its_claims_back_within_seconds(herd, tmp_path):
    number = herd.start(tmp_path, pause_s=0.5)
    wait_until(lambda: len(finished(tmp_path)) >= 2)
    os.kill(number, signal.SIGTERM)
    asked = time.monotonic()
    code, said = herd.wait(number)
    assert code == 75 and "labels: stopped" in said and "Traceback" not in said
    assert time.monotonic() - asked < 20
    assert 2 <= len(finished(tmp_path)) < 15
    assert not (folder_of(tmp_path) / "work").exists()


@pytest.mark.long
def test_hundreds_of_shards_survive_dozens_of_disturbances(environment, disk, tmp_path):
    """Writes what happened into benchmarks/results/label_proof.json."""
    shards, rounds, kills = 100, 2, 10
    paths = label_data.make(tmp_path, shards)
    herd, rng, happened = Herd(tmp_path, environment), random.Random(11), []
    try:
        assert herd.wait(herd.start(tmp_path / "undisturbed"))[0] == 65
        for turn in range(rounds):
            workdir = tmp_path / "small" / str(turn)
            begin = time.monotonic()
            ended = disturb(herd, workdir, rng, shards=shards, kills=kills, disk=disk, pause_s=0.8)
            check_one_error(ended)
            check_whole(workdir, tmp_path, shards)
            assert contents(workdir) == contents(tmp_path / "undisturbed")
            seconds = round(time.monotonic() - begin)
            happened.append({"seconds": seconds, "shards_and_lines_compared": 2 * (shards - 1)})
            shutil.rmtree(workdir)
    finally:
        herd.close()
    result = {
        "processes": 4,
        "shards": shards,
        "records": sum(sources.shard_counts(tmp_path / "data", "tiny", "train").values()),
        "corrupt_images": len(label_data.BROKEN),
        "corrupt_shards": len([paths[label_data.UNREADABLE]]),
        "kills_in_each_run": kills,
        "suspensions_in_each_run": 1,
        "disk_full_spells_in_each_run": int(bool(disk)),
        "runs": happened,
        "every_run_equal_in_every_byte": True,
    }
    out = ROOT / "benchmarks" / "results" / "label_proof.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
