"""The same student step on one device and on eight simulated ones.

One step at a time, from the same state: the loss's median and absolute value have kinks, and two
runs that differ by rounding may later fall on different sides of one.
"""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

MESHES = pytest.mark.parametrize("fsdp", [1, 2], ids=["data=8", "data=4,fsdp=2"])


@pytest.fixture(scope="module")
def outcome(environment, tmp_path_factory):
    """outcome(devices, fsdp) → metrics, parameters and optimiser state by name."""
    folder = tmp_path_factory.mktemp("sharded")
    # On a busy machine eight devices on few cores may wait long for one another.
    patience = " --xla_cpu_collective_call_terminate_timeout_seconds=500"
    patient = {**environment, "XLA_FLAGS": environment["XLA_FLAGS"] + patience}

    def run(devices, fsdp):
        out = folder / f"{devices}-{fsdp}.npz"
        if not out.exists():
            command = [sys.executable, "tests/sharded_step.py", str(devices), str(fsdp), str(out)]
            done = subprocess.run(
                command, cwd=ROOT, env=patient, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, done.stderr
        return dict(np.load(out))

    return run


@MESHES
def test_losses_are_equal(outcome, fsdp):
    one, eight = outcome(1, 1), outcome(8, fsdp)
    names = [name for name in one if "metric" in name]
    assert len(names) == 2 * 12
    for name in names:
        assert one[name] != 0 or "skipped" in name
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-5, err_msg=name)


@MESHES
def test_gradients_are_equal(outcome, fsdp):
    """The optimiser's first moments are the gradients, clipped and scaled. A pixel at a kink, as
    that of the last ReLU, may fall on its other side, and moves a bias by 5e-5 of the largest."""
    one, eight = outcome(1, 1), outcome(8, fsdp)
    names = [name for name in one if ".mu" in name]
    assert len(names) == sum(" [0]" in name for name in one)
    largest = max(np.abs(one[name]).max() for name in names)
    for name in names:
        np.testing.assert_allclose(
            eight[name], one[name], atol=1e-4 * largest, rtol=1e-5, err_msg=name
        )


@MESHES
def test_updated_parameters_are_equal(outcome, fsdp):
    """Adam divides by the gradient's size: where a gradient is nothing but rounding, its update is
    too, and only the others are compared."""
    one, eight = outcome(1, 1), outcome(8, fsdp)
    largest = max(np.abs(one[name]).max() for name in one if ".mu" in name)
    compared = 0
    for name in one:
        if ".mu" not in name:
            continue
        parameter = f"{name[:2]}[0]" + name.partition(".mu")[2]
        clear = np.abs(one[name]) > 1e-3 * largest
        difference = np.abs(eight[parameter] - one[parameter])[clear]
        assert difference.max(initial=0) <= 1e-6, parameter
        compared += clear.sum()
    assert compared > 10_000
