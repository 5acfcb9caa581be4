"""docs/own_data.md: every command in it, as it stands there, on small folders of the sample.

Of those that train the plan is made, which reads the config and opens the data sets.
"""

import importlib.resources
import json
import re
import shlex
import shutil

import cv2
import pytest
from conftest import ROOT

from dav.data.own import PARSERS
from dav.data.own_rows import COLUMNS

PAGE = (ROOT / "docs" / "own_data.md").read_text()
PHOTOS, PAIRS = re.findall(r"^## (?:Photographs|Images).*?(?=^## )", PAGE, re.M | re.S)
SAMPLE = importlib.resources.files("dav") / "sample"


def commands_of(section):
    """[(module, arguments)] of a section's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
    lines = [shlex.split(line) for block in blocks for line in block.strip().splitlines()]
    assert all(line[:2] == ["python", "-m"] for line in lines)
    return [(line[2], line[3:]) for line in lines]


def write_photos(folder):
    """Photographs in folders, and what is none."""
    (folder / "holiday").mkdir(parents=True)
    for path in sorted((SAMPLE / "photos").iterdir())[:12]:
        shutil.copy(path, folder / "holiday")
    (folder / "holiday" / "torn.jpg").write_bytes(b"\xff\xd8\xff")


def write_pairs(folder):
    """Twenty frames of the rendered room, as the page describes them."""
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir(parents=True)
    for number in range(20):
        image = cv2.imread(str(SAMPLE / "icl" / f"{number:03d}.jpg"))
        cv2.imwrite(str(folder / "rgb" / f"{number:04d}.png"), image)
        shutil.copy(SAMPLE / "icl" / f"{number:03d}.png", folder / "depth" / f"{number:04d}.png")
    (folder / "dataset.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAIRS, re.S)[1])


@pytest.fixture
def run(start, tmp_path):
    """run(module, arguments) → output; RAW, DATA and RUN are folders of tmp_path."""

    def run(module, arguments):
        names = {"RAW": tmp_path / "RAW", "DATA": tmp_path / "DATA", "RUN": tmp_path / "RUN"}
        arguments = [
            re.sub(r"\b(RAW|DATA|RUN)\b", lambda found: str(names[found[0]]), argument)
            for argument in arguments
        ]
        process = start(*arguments, module=module)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return out

    return run


def test_photographs_alone(run, tmp_path):
    write_photos(tmp_path / "RAW")
    prepare, inspect, train = commands_of(PHOTOS)
    run(*prepare)
    report = json.loads((tmp_path / "DATA/folder/garage/1.0.0/report.json").read_text())
    counts = report["splits"]["train"]
    assert counts["records"] == 12 and [entry["id"] for entry in counts["skipped"]] == [
        "holiday/torn"
    ]
    run(*inspect)
    assert "one look at 12 images" in run(train[0], [*train[1], "--job=plan"])


def test_images_with_depth(run, tmp_path):
    write_photos(tmp_path / "photos")
    write_pairs(tmp_path / "RAW")
    prepare, inspect, finetune, teacher, student = commands_of(PAIRS)
    run(*prepare)
    run(*inspect)
    for module, arguments in (finetune, teacher):
        assert "folder/garage (test)" in run(module, [*arguments, "--job=plan"])
    run(prepare[0], ["folder/photos", f"--raw={tmp_path}/photos", "--out=DATA"])
    said = run(student[0], [*student[1], "--job=plan"])
    assert "folder/garage (test)" in said and "one look at 12 images" in said


def test_the_tables_of_keys_and_columns_are_whole():
    rows = re.findall(r"^\| (`.+?`) \|", PAGE, re.M)
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(PARSERS)
    assert all(f"`{column}`" in PAGE for column in COLUMNS)
