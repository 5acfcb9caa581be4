"""What the README says must be so."""

import re

import pytest
from conftest import ROOT

from dav.main import JOBS, parse

README = (ROOT / "README.md").read_text()


def test_its_two_commands_are_these():
    assert "pip install -e . && python -m dav.main --config=configs/student.py\n" in README
    assert "pip install -e '.[test]' && pytest\n" in README


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--config\.[\w.]+=[\w/.]+", README))))
def test_its_options_are_known(option):
    parse(["dav", "--config=configs/student.py", option.replace("KEY=VALUE", "steps=3")])


@pytest.mark.parametrize("preset", ["vits", "vitb", "vitl", "mini"])
def test_its_presets_are_known(preset):
    config, workdir, _ = parse(["dav", f"--config=configs/student.py:{preset}"])
    assert config.preset == preset and workdir == f"runs/student-{preset}"


def test_its_jobs_are_all_jobs():
    assert set(re.findall(r"^\| `(\w+)`", README, re.M)) == set(JOBS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_its_links_lead_somewhere(path):
    headings = re.findall(r"^#+ (.+)$", README, re.M)
    anchors = {"#" + heading.lower().replace(" ", "-") for heading in headings}
    assert (ROOT / path).is_file() or path in anchors


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`(dav/[\w/]+\.py|configs/\w+\.py)", README)))
)
def test_the_files_it_names_exist(path):
    assert (ROOT / path).is_file()
