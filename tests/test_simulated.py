"""Simulated devices: programs that wait for one another's parts do end."""

import subprocess
import sys

from conftest import ROOT

MANY_AT_ONCE = """
import sys; sys.path.insert(0, "tests")
import jax, numpy as np
from simulated import simulate_devices
simulate_devices(8)

mesh = jax.make_mesh((8,), ("data",))
ring = [(place, (place + 1) % 8) for place in range(8)]
shift = jax.jit(
    jax.shard_map(
        lambda x: jax.lax.ppermute(x, "data", ring),
        mesh=mesh,
        in_specs=jax.P("data"),
        out_specs=jax.P("data"),
    )
)
rows = jax.device_put(np.arange(8.0), jax.NamedSharding(mesh, jax.P("data")))
for _ in range(20):
    found = [shift(rows) for _ in range(50)]
    jax.block_until_ready(found)
print(np.asarray(found[-1]).tolist())
"""


def test_many_programs_at_once_end(environment):
    """On as many threads as devices, this hangs."""
    impatient = {"XLA_FLAGS": "--xla_cpu_collective_call_terminate_timeout_seconds=60"}
    done = subprocess.run(
        [sys.executable, "-c", MANY_AT_ONCE],
        cwd=ROOT,
        env=environment | impatient,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str([7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
