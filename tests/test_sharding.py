"""The same student steps on one device and on eight simulated ones."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

MESHES = pytest.mark.parametrize("fsdp", [1, 2], ids=["data=8", "data=4,fsdp=2"])


@pytest.fixture(scope="module")
def outcome(environment, tmp_path_factory):
    """outcome(devices, fsdp, optimizer) → metrics, parameters and optimiser state."""
    folder = tmp_path_factory.mktemp("sharded")

    def run(*arguments):
        out = folder / ("-".join(map(str, arguments)) + ".npz")
        if not out.exists():
            command = [sys.executable, "tests/sharded_step.py", *map(str, arguments), str(out)]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, done.stderr
        return dict(np.load(out))

    return run


@MESHES
def test_losses_and_parameters_are_equal_after_three_steps(outcome, fsdp):
    one, eight = outcome(1, 1, "momentum"), outcome(8, fsdp, "momentum")
    assert one.keys() == eight.keys()
    for name in one:
        tolerance = 2e-6 * max(np.abs(one[name]).max(), 1e-2)
        np.testing.assert_allclose(eight[name], one[name], atol=tolerance, rtol=1e-5, err_msg=name)


@MESHES
def test_the_real_optimizer_sees_the_same_gradients(outcome, fsdp):
    """Adam divides by the gradient's size: where a gradient is nothing but rounding, so is its
    update. Compared are the moments, and parameters with a gradient to speak of."""
    one, eight = outcome(1, 1, "adamw"), outcome(8, fsdp, "adamw")
    moments = [name for name in one if ".mu" in name]
    assert len(moments) == sum(name.startswith("[0]") for name in one)
    largest = max(np.abs(one[name]).max() for name in moments)
    for name in moments:
        np.testing.assert_allclose(eight[name], one[name], atol=1e-6 * largest, err_msg=name)
        parameter = "[0]" + name.partition(".mu")[2]
        clear = np.abs(one[name]) > 1e-3 * largest
        difference = np.abs(eight[parameter] - one[parameter])[clear]
        assert difference.max(initial=0) <= 1e-6, parameter
    for name in one:
        if name.startswith("metric"):
            np.testing.assert_allclose(eight[name], one[name], rtol=1e-5, err_msg=name)


def test_the_losses_move(outcome):
    losses = outcome(1, 1, "momentum")["metric loss"]
    assert len(set(losses)) == 3
