"""The commands of the guides are understood as they stand, and no data set is forgotten.

They ask for terabytes, so they are parsed, not run; those of docs/own_data.md are run
(test_own_data.py).
"""

import re
import shlex

import pytest
from conftest import ROOT

from dav import evaluate, inspect, prepare, sky
from dav import main as entry
from dav.data import catalog

PAGE = (ROOT / "docs" / "data.md").read_text()
GUIDES = {name: (ROOT / "docs" / name).read_text() for name in ("training.md", "evaluation.md")}
PARSERS = {
    "dav.data.prepare": prepare.parse,
    "dav.data.inspect": inspect.parse,
    "dav.data.sky": sky.parse,
    "dav.evaluate": evaluate.parse,
    "dav.main": entry.parse,
}
COMMANDS = [
    line
    for page in (PAGE, *GUIDES.values())
    for block in re.findall(r"```\n(.*?)```", page, re.S)
    for line in block.strip().splitlines()
    if line.startswith("python -m")
]


def test_there_are_commands():
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command, tmp_path):
    for folder in re.findall(r"(?<=[= ])/[\w/]+", command):
        (tmp_path / folder[1:]).mkdir(parents=True, exist_ok=True)
    module, *arguments = shlex.split(re.sub(r"(?<=[= ])/", f"{tmp_path}/", command))[2:]
    PARSERS[module]([module, *arguments])


@pytest.mark.parametrize("name", [n for n in catalog.builders() if not n.startswith("sample/")])
def test_every_data_set_is_described(name):
    assert f"`{name}`" in PAGE or f"`{name.partition('/')[0]}`" in PAGE


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE + "".join(GUIDES.values()))))
)
def test_its_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).is_file()


def test_the_presets_and_settings_of_the_training_guide_are_known():
    page = GUIDES["training.md"]
    rows = re.findall(r"^\| `([\w.]+=?[\w.]*)`.* \|", page.partition("## Settings")[2], re.M)
    assert len(rows) >= 7
    for row in rows:
        option = row if "=" in row else f"{row}=1"
        if not row.startswith("model."):
            config, _, _ = entry.parse(
                ["dav", "--config=configs/student.py", f"--config.{option.replace('N', '2')}"]
            )
            assert config
