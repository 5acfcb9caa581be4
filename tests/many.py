"""Starts the processes of tests/one_of_many.py, and looks at what they leave."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from one_of_many import config_of

from dav import folders, recipe, recipe_network
from dav.files import read_lines
from dav.runtime.checkpoint import Checkpoints, latest_step


@contextlib.contextmanager
def launcher(environment, *run):
    """Gives launch(processes, workdir, *options) → the running processes of a run; all of them are
    gone on leaving."""
    started = []

    def launch(processes, workdir, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def arguments(process):
            return (str(one) for one in (port, process, processes, 1, workdir, *run, *options))

        each = [
            subprocess.Popen(
                [sys.executable, "tests/one_of_many.py", *arguments(process)],
                cwd=ROOT,
                env=environment | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for process in range(processes)
        ]
        started.extend(each)
        return each

    try:
        yield launch
    finally:
        for process in started:
            process.kill()
            process.communicate()


def outcomes(processes, timeout=240):
    """[(exit code, stdout, stderr)] of processes that end by themselves."""
    said = [process.communicate(timeout=timeout) for process in processes]
    return [(p.returncode, *texts) for p, texts in zip(processes, said, strict=True)]


def wait_for(condition, processes, seconds=240):
    """Polls until the condition holds; all processes must still be running then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert all(p.poll() is None for p in processes), outcomes(processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gate(workdir, process):
    """The file that keeps a process from its next batches."""
    return Path(f"{workdir}.gate-{process}")


def steps_told(workdir):
    """The steps of which there are figures."""
    return [line["step"] for line in read_lines(workdir / "metrics.jsonl")]


def losses(workdir):
    """The losses of those steps."""
    return [line["loss"] for line in read_lines(workdir / "metrics.jsonl")]


def saved(workdir):
    """The newest finished checkpoint's step, or None."""
    return latest_step(workdir / "checkpoints")


def state_at(step, workdir, *run):
    """The leaves of the state saved at a step, restored onto the one device of this process."""
    with pytest.MonkeyPatch.context() as patch:  # config_of changes what the other tests need
        for name in ("make_model", "make_frozen_encoder"):
            patch.setattr(recipe_network, name, getattr(recipe_network, name))
        config = config_of(*run)
        shapes = recipe.make_trainer(config).shapes
    folder = folders.make_paths(config, workdir).checkpoints
    with Checkpoints(folder, keep=config.keep_checkpoints, keep_every=config.keep_every) as found:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(found.restore(step, shapes))]
