"""The export command: what it writes, what it refuses, and with which exit code."""

import json

import jax
import numpy as np
import pytest
from random_weights import TINY, random_weights

from dav import export
from dav.errors import ConfigError
from dav.weights.load import load_weights
from dav.weights.save import save_official


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_official(path, random_weights(TINY, 0))
    return path


def run(*arguments):
    return export.main(["export", *map(str, arguments)])


@pytest.mark.parametrize(
    ("layout", "name"),
    [("official", "new/a.pth"), ("official", "a.safetensors"), ("transformers", "new/folder")],
)
def test_weights_come_out_as_they_went_in(original, tmp_path, capsys, layout, name):
    out = tmp_path / name
    assert run(f"--weights={original}", f"--layout={layout}", f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"wrote {out} ({layout} layout): 6 blocks of width 64, relative\n")
    assert ("42×42" in printed) == (layout == "transformers")
    expected = load_weights(original).params
    jax.tree.map(np.testing.assert_array_equal, load_weights(out).params, expected)


def test_nothing_is_overwritten_unasked(original, tmp_path, capsys):
    out = tmp_path / "out.pth"
    out.write_text("precious")
    arguments = (f"--weights={original}", "--layout=official", f"--out={out}")
    assert run(*arguments) == 2
    assert "is there already" in capsys.readouterr().err and out.read_text() == "precious"
    assert run(*arguments, "--overwrite") == 0
    assert load_weights(out).architecture == TINY


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, ""),
        (("--layout=official", "--out=a.pth"), 2, "--weights is missing"),
        (("--weights=a.pth", "--layout=onnx", "--out=b"), 2, "unknown --layout=onnx"),
        (("--weights=a.pth", "--layout=official", "--out=b"), 2, "is a file, .safetensors or .pth"),
        (("--weights=a.pth", "--layout=transformers", "--out=b.pth"), 2, "is a folder"),
        (("--weights=hf:x", "--layout=official", "--out=b.pth"), 2, "hf:x is not of the form"),
        (("--weights=a.pth", "--layout=official", "--out=b.pth"), 2, "there is no a.pth"),
        (("--frobnicate",), 2, "frobnicate"),
        (("more",), 2, "unexpected argument 'more'"),
    ],
)
def test_a_wrong_command_is_one_sentence(arguments, code, told, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") <= 1
    assert not list(tmp_path.iterdir())


def test_the_command_itself_and_its_help(start, original, tmp_path):
    process = start("--help", module="dav.export")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "--layout=official|transformers" in out and not err
    folder = tmp_path / "folder"
    process = start(
        f"--weights={original}", "--layout=transformers", f"--out={folder}", module="dav.export"
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert json.loads((folder / "config.json").read_text())["reassemble_hidden_size"] == 64


def test_what_is_read_is_never_written_over(tmp_path):
    path = tmp_path / "x.safetensors"
    save_official(path, random_weights(TINY, 0))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is where the weights come from"):
        export.export(str(path), "official", path, overwrite=True)
    assert path.read_bytes() == before


def test_a_home_folder_in_the_spec_is_no_way_round(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "x.safetensors"
    save_official(path, random_weights(TINY, 0))
    before = path.stat()
    arguments = ("--weights=~/x.safetensors", "--layout=official", f"--out={path}", "--overwrite")
    assert run(*arguments) == 2
    assert "is where the weights come from" in capsys.readouterr().err
    assert path.stat().st_ino == before.st_ino


def test_the_folder_of_the_source_is_not_replaced(tmp_path, capsys):
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    save_official(path, random_weights(TINY, 0))
    before = path.read_bytes()
    arguments = (f"--weights={path}", "--layout=transformers", f"--out={path.parent}")
    assert run(*arguments, "--overwrite") == 2
    assert "is where the weights come from" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_file_of_torch_needs_a_name_in_utf_8(original, tmp_path, capsys):
    """Its archive carries the name inside; the other forms take any."""
    out = tmp_path / "b\udcff"
    arguments = f"--weights={original}", "--layout=official"
    assert run(*arguments, f"--out={out}.pth") == 2
    said = capsys.readouterr().err
    assert r"b\udcff.pth" in said and "UTF-8" in said and said.count("\n") == 1
    assert run(*arguments, f"--out={out}.safetensors") == 0
    assert run(arguments[0], "--layout=transformers", f"--out={out}") == 0
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_files_get_the_usual_permissions(tmp_path, name):
    save_official(tmp_path / name, random_weights(TINY, 0))
    (tmp_path / "plain").touch()
    assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode
