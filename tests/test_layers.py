"""Who may import whom, and what a module may weigh."""

import ast
from pathlib import Path

import pytest

DAV = Path(__file__).parent.parent / "dav"
MODULES = sorted(DAV.rglob("*.py"))

# What each part may import of dav, beside itself. Longest prefix counts.
ALLOWED = {
    "models": {"models"},
    "objectives": {"objectives"},
    "evaluation": {"evaluation", "threads", "viz", "errors"},
    "errors": set(),
    "files": {"errors"},
    "viz": set(),
    "images": {"errors"},
    "threads": set(),
    "inputs": {"images", "files", "errors"},
    "outputs": {"viz", "files", "errors"},
    "step": {"models", "objectives"},
    "data": {"data", "images", "threads", "errors", "files"},
    "runtime": {"runtime", "models", "errors", "files"},
    "inference": {"data", "images", "models", "threads", "errors"},
    "weights": {"weights", "models", "runtime", "errors", "files"},
    "folders": {"data", "runtime", "weights", "errors", "files"},
    "recipe_data": {"folders", "data", "errors"},
    "recipe_update": {"step"},
    "recipe_network": {"step", "runtime", "weights", "models", "errors"},
    "recipe": {
        *{"recipe_data", "recipe_network", "recipe_update", "folders", "step", "runtime", "models"},
        *{"errors"},
    },
}


def part_of(module):
    """dav/data/labels.py → data; dav/step.py → step."""
    return module.relative_to(DAV).parts[0].removesuffix(".py")


def walk(tree):
    """All nodes but those of `if __name__ == "__main__":`, where a part hands over to its job."""
    body = [node for node in tree.body if not ast.unparse(node).startswith("if __name__ ==")]
    return ast.walk(ast.Module(body, type_ignores=[]))


def imports_of(module):
    """Names of all modules that a file imports, nested imports included."""
    for node in walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(DAV)))
def test_imports_point_one_way(module):
    part = part_of(module)
    if part not in ALLOWED:
        return  # jobs, their report and the entry may import every part
    used = {name.split(".")[1] for name in imports_of(module) if name.startswith("dav.")}
    assert used <= ALLOWED[part] | {part}, f"{module} imports {used - ALLOWED[part]}"


@pytest.mark.parametrize("module", sorted((DAV / "data").rglob("*.py")), ids=lambda m: m.name)
def test_data_does_not_touch_jax_but_in_the_loader(module):
    libraries = {name.split(".")[0] for name in imports_of(module)}
    assert module.name == "loader.py" or not libraries & {"jax", "flax", "optax", "orbax"}


def test_parts_never_see_a_config():
    for module in MODULES:
        if part_of(module) in ALLOWED and part_of(module) not in {"recipe", "folders"}:
            assert "ml_collections" not in {name.split(".")[0] for name in imports_of(module)}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(DAV)))
def test_modules_stay_small(module):
    text = module.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, node.name


def test_the_entry_is_light():
    """The data workers import it again: nothing heavy at its top level."""
    for name, ours in (("main", {"dav.failure"}), ("failure", set())):
        body = ast.parse((DAV / f"{name}.py").read_text()).body
        assert {node.module for node in body if isinstance(node, ast.ImportFrom)} == ours
        top = {a.name for node in body if isinstance(node, ast.Import) for a in node.names}
        assert top <= {"errno", "os", "signal", "sys"}
