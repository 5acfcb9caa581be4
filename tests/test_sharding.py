"""The same student step on one device, on simulated ones, and on those of several processes.

One step at a time, from the same state: the loss's median and absolute value have kinks, and two
runs that differ by rounding may later fall on different sides of one.
"""

import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

# Processes, devices of each, parts that weights are in, whether images are perturbed. A step that
# perturbs compiles in twice the time, so the short proof is of one that does not; and several
# processes compile it several times: tests/test_elastic.py has them train a smaller network.
SHORT = [(1, 8, 2, 0)]
LONG = [(1, 2, 1, 1), (1, 4, 4, 1), (1, 8, 1, 1), (2, 1, 1, 1), (2, 4, 2, 1), (4, 1, 2, 1)]
SHARED = pytest.mark.parametrize(
    "mesh", [*SHORT, *(pytest.param(mesh, marks=pytest.mark.long) for mesh in LONG)], ids=str
)


@pytest.fixture(scope="module")
def outcome(environment, tmp_path_factory):
    """outcome(mesh) → metrics, parameters and optimiser state by name."""
    folder = tmp_path_factory.mktemp("sharded")
    # On a busy machine eight devices on few cores may wait long for one another.
    patience = " --xla_cpu_collective_call_terminate_timeout_seconds=500"
    patient = {**environment, "XLA_FLAGS": environment["XLA_FLAGS"] + patience}

    def run(mesh):
        out = folder / f"{mesh}.npz"
        if not out.exists():
            for process, (_, err) in finished(patient, out, *mesh):
                assert process.returncode == 0 and "donated" not in err, err
        return dict(np.load(out))

    return run


def finished(environment, out, processes, devices, fsdp, perturb):
    """[(process, (stdout, stderr))] of the processes that share a step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    each = [
        subprocess.Popen(
            [sys.executable, "tests/sharded_step.py", address]
            + [str(one) for one in (process, processes, devices, fsdp, out, perturb)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    return [(process, process.communicate(timeout=600)) for process in each]


@SHARED
def test_losses_are_equal(outcome, mesh):
    one, many = outcome((1, 1, 1, mesh[-1])), outcome(mesh)
    names = [name for name in one if "metric" in name]
    assert len(names) == 2 * 12
    for name in names:
        assert one[name] != 0 or "skipped" in name
        np.testing.assert_allclose(many[name], one[name], rtol=1e-5, err_msg=name)


@SHARED
def test_gradients_are_equal(outcome, mesh):
    """The optimiser's first moments are the gradients, clipped and scaled. A pixel at a kink, as
    that of the last ReLU, may fall on its other side, and moves a bias by 5e-5 of the largest."""
    one, many = outcome((1, 1, 1, mesh[-1])), outcome(mesh)
    names = [name for name in one if ".mu" in name]
    assert len(names) == sum(" [0]" in name for name in one)
    largest = max(np.abs(one[name]).max() for name in names)
    for name in names:
        np.testing.assert_allclose(
            many[name], one[name], atol=1e-4 * largest, rtol=1e-5, err_msg=name
        )


@SHARED
def test_updated_parameters_are_equal(outcome, mesh):
    """Adam divides by the gradient's size: where a gradient is nothing but rounding, its update is
    too, and only the others are compared."""
    one, many = outcome((1, 1, 1, mesh[-1])), outcome(mesh)
    largest = max(np.abs(one[name]).max() for name in one if ".mu" in name)
    compared = 0
    for name in one:
        if ".mu" not in name:
            continue
        parameter = f"{name[:2]}[0]" + name.partition(".mu")[2]
        clear = np.abs(one[name]) > 1e-3 * largest
        difference = np.abs(many[parameter] - one[parameter])[clear]
        assert difference.max(initial=0) <= 1e-6, parameter
        compared += clear.sum()
    assert compared > 10_000
