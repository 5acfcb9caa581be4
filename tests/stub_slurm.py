"""As much of Slurm as the batch scripts need, on this machine alone.

    python tests/stub_slurm.py sbatch [--OPTION=VALUE ...] SCRIPT ARGUMENT ...
    python tests/stub_slurm.py srun [--OPTION=VALUE ...] COMMAND ...
    python tests/stub_slurm.py scontrol requeue JOB

sbatch reads the script's #SBATCH lines, under the options of its own command line, and runs it
(of an array, one task) until it ends without having been requeued. STUB_SLURM holds its files:
`srun` and `scontrol`, for PATH, `job` with the job's number, and `pids` of the running tasks. A
file `time_limit` there makes it send --signal as Slurm does, to the tasks or with B: to the script.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


def folder():
    return Path(os.environ["STUB_SLURM"])


def split_options(arguments):
    """--NAME=VALUE in front → dict, and what follows."""
    count = next((i for i, a in enumerate(arguments) if not a.startswith("--")), len(arguments))
    pairs = (argument[2:].partition("=") for argument in arguments[:count])
    return {name: value for name, _, value in pairs}, arguments[count:]


def sbatch(arguments):
    """Runs a script as a job; returns its last exit code."""
    given, (script, *rest) = split_options(arguments)
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", Path(script).read_text(), re.M)
    options = {**dict(lines), **given}
    tasks = int(options.get("ntasks", 0)) or int(options["nodes"]) * int(options["ntasks-per-node"])
    environ = {
        **os.environ,
        "PATH": f"{folder()}:{os.environ['PATH']}",
        "SLURM_JOB_ID": (folder() / "job").read_text(),
        "SLURM_NTASKS": str(tasks),
        "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    if "array" in options:  # the task whose own number, with Slurm too, is that of the whole array
        environ["SLURM_ARRAY_JOB_ID"] = environ["SLURM_JOB_ID"]
        environ["SLURM_ARRAY_TASK_ID"] = options["array"].rpartition("-")[2]
    assert "requeue" in options and options["open-mode"] == "append"
    for restart in range(5):
        if restart:
            environ["SLURM_RESTART_COUNT"] = str(restart)
        job = subprocess.Popen(["bash", script, *rest], env=environ)
        while job.poll() is None:
            time.sleep(0.05)
            if (folder() / "time_limit").exists():
                (folder() / "time_limit").unlink()
                send(options["signal"].split("@")[0], job)
        requeued = folder() / "requeued"
        if not requeued.exists():
            return job.returncode
        requeued.unlink()
    raise SystemExit("requeued without end")


def send(what, job):
    """Slurm's --signal: to all tasks, or with B: to the script alone."""
    number = signal.Signals[f"SIG{what.removeprefix('B:')}"]
    pids = [job.pid] if what.startswith("B:") else map(int, (folder() / "pids").read_text().split())
    for pid in pids:
        os.kill(pid, number)


def srun(arguments):
    """Starts the tasks of a step; returns the highest exit code, a signal's being 128 + its own."""
    options, command = split_options(arguments)
    count = int(os.environ["SLURM_NTASKS"])
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_TASKS_PER_NODE": str(count),
        "SLURM_NODEID": "0",
    }
    tasks = [
        subprocess.Popen(
            command, env={**os.environ, **step, "SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)}
        )
        for k in range(count)
    ]
    (folder() / "pids").write_text(" ".join(str(task.pid) for task in tasks))
    codes = [task.wait() for task in tasks]
    assert options.get("kill-on-bad-exit", "0") == "0"
    return max(code if code >= 0 else 128 - code for code in codes)


def scontrol(arguments):
    """Marks the job for another run; of an array, the number alone would mean all of its tasks."""
    number = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        number += f"_{os.environ['SLURM_ARRAY_TASK_ID']}"
    assert arguments == ["requeue", number], arguments
    (folder() / "requeued").touch()
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
