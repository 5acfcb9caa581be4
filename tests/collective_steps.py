"""Starts as every job does, then takes steps that need all processes of the run.

    python tests/collective_steps.py STEPS [--coordinator=HOST:PORT --process_id=K ...]

Prints `PROCESS of COUNT: SUM` after each step, SUM being 1 for each process. STEPS 0: none at all,
and a time-out of 2 s at the start.
"""

import sys

from absl import flags

from dav.main import carry_out, quieten
from dav.runtime import processes


def work():
    values = flags.FlagValues()
    flags.DEFINE_string("coordinator", "", "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    steps = int(values(sys.argv)[1])
    start = {name: values[name].value for name in ("coordinator", "process_id", "num_processes")}
    quieten()
    processes.start(**start, timeout_s=60 if steps else 2)
    import jax
    from jax.experimental import multihost_utils

    for _ in range(steps):
        total = multihost_utils.process_allgather(1).sum()
        print(f"{jax.process_index()} of {jax.process_count()}: {total}", flush=True)


if __name__ == "__main__":
    code = carry_out(sys.argv, __doc__, work)
    processes.leave(code)
    sys.exit(code)
