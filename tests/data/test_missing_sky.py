"""Skies that a set's maps do not tell are not left out in silence."""

import cv2
import numpy as np
import pytest
import tiny

from dav import prepare
from dav.data import building, catalog
from dav.main import main

SAID = "tiny: without sky masks"


@pytest.fixture
def raw(monkeypatch, tmp_path):
    """RAW with the raw folder of `tiny`, whose builder runs in this process."""
    builder = tiny.builder("tiny", labelled=True, sky_unmarked=True)
    tiny.install(monkeypatch, builder, tiny.builder("knowing", labelled=True))
    monkeypatch.setattr(building, "cores", lambda: 1)
    for name in ("tiny", "knowing"):
        tiny.write_pictures(tmp_path / "raw" / name, 2, labelled=True)
    return tmp_path / "raw"


def prepare_one(raw, name, *options):
    out = raw.with_name("data")
    return prepare.main(["prepare", name, f"--raw={raw / name}", f"--out={out}", *options])


def test_preparing_says_which_set_is_without_sky(raw, capsys):
    assert prepare_one(raw, "tiny") == prepare_one(raw, "knowing") == 0
    said = capsys.readouterr().out
    assert said.count("without sky masks") == 1 and SAID in said and "docs/data.md" in said


def test_with_masks_nothing_is_said(raw, capsys):
    masks = raw.with_name("masks")
    masks.mkdir()
    for number in range(2):
        cv2.imwrite(str(masks / f"{number:04d}.png"), np.zeros((40, 60), np.uint8))
    assert prepare_one(raw, "tiny", f"--sky={masks}") == 0
    assert "sky" not in capsys.readouterr().out


def test_a_recipe_says_so_before_and_after_it_prepares(raw, capsys):
    options = [f"--config.data.root={raw.with_name('data')}", "--config.evaluation.sets=()"]
    options.append("--config.data.labelled=('tiny', 'knowing')")
    from_raw = f"--config.data.raw={raw}"

    def said(*more):
        assert main(["dav", "--config=configs/teacher.py", *options, *more]) == 0
        return capsys.readouterr().out

    assert "sky" not in said("--job=plan")  # nobody knows how it will be prepared
    for arguments in ((from_raw, "--job=plan"), (from_raw, "--job=prepare"), ("--job=plan",)):
        assert said(*arguments).count(SAID) == 1


def test_the_sets_that_need_masks_are_known():
    found = {name for name, builder in catalog.builders().items() if builder.sky_unmarked}
    assert found == {"blended_mvs", "diml", "diml/outdoor", "hrwsi", "irs", "megadepth"}
