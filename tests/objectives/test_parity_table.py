"""docs/parity.md: its values hold, it names every objective, and a broken bound is told."""

import importlib.util

import objective_parity
import pytest
from conftest import ROOT

CASES = {name: case for name, *case in objective_parity.OBJECTIVES}


def load_tool():
    path = ROOT / "tools" / "parity_table.py"
    spec = importlib.util.spec_from_file_location("parity_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CASES)
def test_every_objective_is_within_its_bound(name):
    assert objective_parity.value_error(*CASES[name]) <= objective_parity.BOUND


@pytest.mark.parametrize("name", ["affine-invariant, trimmed as in V2", "gradient matching"])
def test_gradients_are_within_their_bound(name):
    assert objective_parity.gradient_error(*CASES[name]) <= objective_parity.BOUND


def test_a_wrong_objective_or_count_is_found():
    ours, reference, arguments, options = CASES["scale-invariant log, V2"]

    def wrong(*maps, **options):
        total, count = ours(*maps, **options)
        return 1.001 * total, count

    def miscounted(*maps, **options):
        total, count = ours(*maps, **options)
        return total, count + 1

    assert objective_parity.value_error(wrong, reference, arguments, options) > 9e-4
    assert objective_parity.value_error(miscounted, reference, arguments, options) > 1
    assert objective_parity.gradient_error(wrong, reference, arguments, options) > 9e-4


def test_an_error_above_its_bound_or_not_a_number_fails_and_writes_nothing(tmp_path, monkeypatch):
    tool, out = load_tool(), tmp_path / "parity.md"
    monkeypatch.setattr("sys.argv", ["parity_table", f"--out={out}"])
    errors = {"good": 1e-6, "bad": 1e-4, "worse": float("nan")}
    table = [(name, "r", error, 1e-5) for name, error in errors.items()]
    monkeypatch.setattr(tool, "TABLES", [("Title", "Note.", lambda: table)])
    with pytest.raises(SystemExit, match="above its bound: bad, r: 0.0001; worse, r: nan"):
        tool.main()
    assert not out.exists()
    monkeypatch.setattr(tool, "TABLES", [("Title", "Note.", lambda: table[:1])])
    tool.main()
    assert "| good | r | 1e-06 | 1e-05 |" in out.read_text()


def test_the_page_lists_what_the_tool_measures():
    page = (ROOT / "docs" / "parity.md").read_text()
    for name in CASES:
        assert f"| {name} |" in page and f"| {name}: gradient |" in page
