"""The commands of docs/data.md are understood as they stand, and no data set is forgotten.

They ask for terabytes, so they are parsed, not run; those of docs/own_data.md are run
(test_own_data.py).
"""

import re
import shlex

import pytest
from conftest import ROOT

from dav import inspect, prepare, sky
from dav import main as entry
from dav.data import catalog

PAGE = (ROOT / "docs" / "data.md").read_text()
PARSERS = {
    "dav.data.prepare": prepare.parse,
    "dav.data.inspect": inspect.parse,
    "dav.data.sky": sky.parse,
    "dav.main": entry.parse,
}
COMMANDS = [
    line
    for block in re.findall(r"```\n(.*?)```", PAGE, re.S)
    for line in block.strip().splitlines()
    if line.startswith("python -m")
]


def test_there_are_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command):
    module, *arguments = shlex.split(command)[2:]
    PARSERS[module]([module, *arguments])


@pytest.mark.parametrize("name", [n for n in catalog.builders() if not n.startswith("sample/")])
def test_every_data_set_is_described(name):
    assert f"`{name}`" in PAGE or f"`{name.partition('/')[0]}`" in PAGE


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_its_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).is_file()
