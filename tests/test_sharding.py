"""The same steps on one device and on eight simulated ones."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def outcome(environment, tmp_path_factory):
    """outcome(devices, fsdp, recipe) → metrics and parameters after three steps."""
    folder = tmp_path_factory.mktemp("sharded")

    def run(devices, fsdp, recipe):
        out = folder / f"{devices}-{fsdp}-{recipe}.npz"
        if not out.exists():
            command = [sys.executable, ROOT / "tests" / "sharded_step.py"]
            done = subprocess.run(
                [*map(str, command), str(devices), str(fsdp), recipe, str(out)],
                cwd=ROOT,
                env={**environment, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, done.stderr
        return dict(np.load(out))

    return run


@pytest.mark.parametrize("recipe", ["teacher", "student"])
@pytest.mark.parametrize("fsdp", [1, 2], ids=["data=8", "data=4,fsdp=2"])
def test_eight_devices_equal_one(outcome, fsdp, recipe):
    one, eight = outcome(1, 1, recipe), outcome(8, fsdp, recipe)
    assert one.keys() == eight.keys()
    for name in one:
        if name.startswith("metric"):
            np.testing.assert_allclose(eight[name], one[name], rtol=2e-4, err_msg=name)
        else:
            # Three Adam steps move a weight by up to 3 × its rate; the difference stays far below.
            np.testing.assert_allclose(eight[name], one[name], atol=2e-6, rtol=1e-5, err_msg=name)


def test_the_losses_move(outcome):
    losses = outcome(1, 1, "teacher")["metric loss"]
    assert len(set(losses)) == 3
