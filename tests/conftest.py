"""What every test may use: a command runner, prepared sample data, and a place for originals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The files that take longest, begun first: what begins last keeps one worker while the other idles.
LONGEST = (
    "test_chain",
    "test_parity",
    "test_elastic",
    "test_sharding",
    "test_step",
    "test_overfit",
)

# One cache for all processes of a run: the same small programs are compiled once.
CACHE_VARIABLES = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def pytest_collection_modifyitems(items):
    """Whole files in their order, the longest first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Environment of the tests' child processes."""
    cache = tmp_path_factory.mktemp("compiled")
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    # They take few steps: compiling a program well would take far longer than running it.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": ""}
    return {**kept, **CACHE_VARIABLES, **quick, "JAX_COMPILATION_CACHE_DIR": str(cache)}


@pytest.fixture(scope="session")
def start(environment):
    """start(*arguments) → the running `python -m dav.main` process."""

    def run(*arguments, module="dav.main", **extra):
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **extra,
        )

    return run


@pytest.fixture(scope="session")
def dav(start):
    """dav(*arguments) → (exit code, stdout, stderr) of a finished `python -m dav.main`."""

    def run(*arguments, **extra):
        process = start(*arguments, **extra)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory):
    """A folder with every configuration of the sample prepared."""
    from dav.data import prepare

    root = tmp_path_factory.mktemp("data")
    for name in ("sample/icl", "sample/tum", "sample/lab", "sample/photos"):
        prepare.prepare(root, name)
    return root


@pytest.fixture(scope="session")
def extra_data():
    """The folder of real weights and samples; without it, its tests skip."""
    folder = Path(os.environ.get("DAV_EXTRA_DATA") or ROOT.parent / "shared")
    if not (folder / "weights").is_dir():
        pytest.skip("no real weights: DAV_EXTRA_DATA names no folder that holds them")
    return folder
