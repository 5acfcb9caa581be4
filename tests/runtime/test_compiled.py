"""Compiled programs that a kill, or a full disk, cut off while they were kept."""

import subprocess
import sys

from conftest import ROOT

PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from dav.runtime.compiled import keep_programs

folder, written = Path(sys.argv[1]), []
keep_programs(folder)
keep_programs(folder)
miss = "/jax/compilation_cache/cache_misses"
jax.monitoring.register_event_listener(lambda event, **_: written.append(event == miss))

def start_again():
    written.clear()
    jax.clear_caches()
    jax.jit(lambda x: (jnp.sin(x) @ jnp.cos(x)).sum())(jnp.ones((8, 8))).block_until_ready()
    return sum(written)

def cut(share):
    for path in folder.glob("*-cache"):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

print(start_again() > 0, start_again())
for share in (0.5, 0):
    cut(share)
    print(start_again() > 0, start_again())
"""


def test_programs_that_were_cut_off_are_kept_anew(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "kept")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.splitlines() == ["True 0"] * 3
