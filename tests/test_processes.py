"""Who belongs to a run is found out from flags or environment; the loss of one ends the others."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from dav.errors import ConfigError, DavError
from dav.runtime import processes

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
POD = {"TPU_WORKER_HOSTNAMES": "host-0,host-1", "TPU_WORKER_ID": "1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("environ", "tpu_vm", "found"),
    [
        ({}, False, {}),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}, False, {}),
        (STEP, False, {"cluster_detection_method": "slurm", "local_device_ids": None}),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, False, {}),  # salloc's shell
        ({k: v for k, v in STEP.items() if "_STEP_" not in k}, False, {}),  # sbatch's script
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, False, {}),  # a login shell with salloc
        (POD, False, {}),  # GKE's variables without a TPU
        (POD, True, {"cluster_detection_method": "gketpu"}),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, True, {}),
        (
            {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"},
            True,
            {"cluster_detection_method": "gketpu"},
        ),
        ({}, True, {"cluster_detection_method": "gcetpu"}),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, {}),
        ({"JAX_PLATFORMS": "cpu"}, True, {}),  # a TPU host that works without its TPU
    ],
)
def test_the_environment_says_who_else_there_is(environ, tpu_vm, found):
    assert processes.detect(environ, tpu_vm) == found


def test_jax_knows_the_names_of_these_environments():
    from jax._src.clusters import ClusterEnv

    assert {kind.name for kind in ClusterEnv._cluster_types} >= {"slurm", "gketpu", "gcetpu"}


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, []),  # each task is shown its own
        ({"SLURM_GPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, []),
        ({"SLURM_TRES_PER_TASK": "cpu:8"}, None),
        ({"SLURM_TRES_PER_TASK": "cpu:8,gres/gpu:1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, []),  # one process a node
        ({"SLURM_STEP_TASKS_PER_NODE": "7,1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "7,1", "SLURM_NODEID": "0"}, None),
    ],
)
def test_a_slurm_task_takes_its_own_gpu_or_all_that_it_is_shown(changes, devices):
    assert processes.slurm_gpus({**STEP, **changes}) == devices


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("host:1", None, None), "belong together"),
        (("", 0, 2), "belong together"),
        (("", 1, 1), "belong together"),
        (("host:1", 2, 2), "--process_id=2 is not one of 0 … 1"),
        (("host:1", -1, 2), "--process_id=-1"),
        (("host", 0, 2), "HOST:PORT"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        processes.start(*flags)


def test_one_process_needs_nobody():
    assert processes.check_flags("", None, None) is None
    assert processes.check_flags("", None, 1) == processes.check_flags("host:1", 0, 1) == {}
    processes.start(num_processes=1)
    assert processes.is_first() and processes.is_alone() and processes.name() == "dav"


@pytest.fixture(scope="module")
def spawn(environment):
    """spawn(steps, *flags, **variables) → the running process."""
    started = []

    def run(steps, *flags, program=("tests/collective_steps.py",), **variables):
        command = [sys.executable, *program, str(steps), *flags]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def spawn_by_flags(spawn, steps):
    where = f"--coordinator=127.0.0.1:{free_port()}"
    return [spawn(steps, where, f"--process_id={k}", "--num_processes=2") for k in (0, 1)]


@pytest.fixture(scope="module")
def too_late(spawn):
    """A process that waits for another one that never comes; started early, for it takes time."""
    return spawn(0, f"--coordinator=127.0.0.1:{free_port()}", "--process_id=1", "--num_processes=2")


def test_two_hosts_meet_by_gke_s_variables_and_only_the_first_speaks(too_late, spawn):
    slices = {
        "JAX_FORCE_TPU_INIT": "1",  # jax takes this for a machine with TPU chips
        "JAX_COORDINATOR_PORT": str(free_port()),
        "TPU_WORKER_HOSTNAMES": "127.0.0.1",
        "TPU_WORKER_ID": "0",
        "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.1",
        "MEGASCALE_NUM_SLICES": "2",
    }
    pair = [spawn(2, **slices, MEGASCALE_SLICE_ID=str(k)) for k in (0, 1)]
    (first, first_err), (second, _) = (process.communicate(timeout=120) for process in pair)
    assert [process.returncode for process in pair] == [0, 0], first_err
    assert [line for line in first.splitlines() if "of" in line[:5]] == ["0 of 2: 2"] * 2
    assert second == ""


# jax is made to believe in TPU chips, and then to do without them.
TPU_VM = """
import os, sys
sys.path.insert(0, "tests")
import jax
jax.config.update("jax_platforms", "cpu")
del os.environ["TPU_SKIP_MDS_QUERY"]
import collective_steps
collective_steps.work()
"""


@contextlib.contextmanager
def metadata_server(worker):
    """HOST:PORT of what a host of a Cloud TPU slice asks who it is."""
    answers = {
        "agent-worker-number": str(worker),
        "worker-network-endpoints": "127.0.0.1,127.0.0.1",
        "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-8'",
    }

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[self.path.rpartition("/")[2]].encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.long
def test_two_hosts_of_a_cloud_tpu_meet_by_their_metadata(spawn):
    common = {"JAX_FORCE_TPU_INIT": "1", "JAX_COORDINATOR_PORT": str(free_port())}
    with metadata_server(0) as first, metadata_server(1) as second:
        hosts = {"JAX_PLATFORMS": "", **common}
        pair = [
            spawn(2, **hosts, GCE_METADATA_IP=where, program=("-c", TPU_VM))
            for where in (first, second)
        ]
        (out, err), _ = (process.communicate(timeout=120) for process in pair)
    assert [process.returncode for process in pair] == [0, 0], err
    assert [line for line in out.splitlines() if "of" in line[:5]] == ["0 of 2: 2"] * 2


def test_the_loss_of_a_process_ends_the_others_with_one_sentence(too_late, spawn):
    first, second = spawn_by_flags(spawn, 10**6)
    first.stdout.readline()  # the steps have begun
    second.send_signal(signal.SIGKILL)
    begin = time.monotonic()
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1 and time.monotonic() - begin < 60
    last = said.strip().splitlines()[-1]
    assert last.startswith("dav, process 0 of 2: another process of this run was lost")
    assert "start the same command again on all hosts" in last and "Traceback" not in said


def test_an_error_of_ones_own_is_not_taken_for_the_loss_of_another(monkeypatch):
    lost = "UNKNOWN: Gloo AllGather failed: Read error: Connection reset by peer"
    assert not processes.has_lost_another(ValueError(lost))  # there is no other
    monkeypatch.setattr(processes, "is_alone", lambda: False)
    assert processes.has_lost_another(ValueError(lost))
    assert not processes.has_lost_another(ValueError("RESOURCE_EXHAUSTED: out of memory"))
    assert not processes.has_lost_another(ConnectionError("Connection reset by peer"))


@pytest.mark.parametrize("code", [0, 65])
def test_a_process_whose_job_has_come_to_its_end_waits_for_the_others(monkeypatch, code):
    """By returning: a normal exit does."""
    monkeypatch.setattr(processes, "is_alone", lambda: False)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"ends at once with {code}"))
    processes.leave(code)


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_silent_host_ends_the_others_within_a_minute(spawn, victim, how):
    pair = spawn_by_flags(spawn, 10**6)
    pair[0].stdout.readline()
    time.sleep(1)
    pair[victim].send_signal(how)
    begin = time.monotonic()
    _, said = pair[1 - victim].communicate(timeout=90)
    assert pair[1 - victim].returncode == 1 and time.monotonic() - begin < 60
    assert f"dav, process {1 - victim} of 2: another process of this run" in said.splitlines()[-1]
    pair[victim].kill()


@pytest.mark.long
def test_a_stop_asked_of_one_process_alone_does_not_hang_the_run(spawn):
    pair = spawn_by_flags(spawn, 10**6)
    pair[0].stdout.readline()
    pair[1].send_signal(signal.SIGTERM)
    _, said = pair[1].communicate(timeout=90)
    assert pair[1].returncode == 75
    assert said.splitlines()[-1].startswith("dav, process 1 of 2: stopped")
    pair[0].communicate(timeout=60)
    assert pair[0].returncode == 1


def test_processes_that_do_not_meet_say_so(too_late):
    out, said = too_late.communicate(timeout=60)
    assert too_late.returncode == 1 and out == ""
    assert said.startswith(
        f"dav on {os.uname().nodename}: process 1 of 2 did not meet all the others at 127.0.0.1:"
    )
    assert "within 2 s" in said and said.count("\n") == 1


CONNECTS = """
import ctypes, signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # even if the tests run under nohup
from dav.runtime import processes
with processes._own_last_words("late"):
    print("connects", flush=True)
    while True:
        ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_process_that_is_connecting(spawn, number):
    """By an exit, not by the signal: that is how the first process of a container can end."""
    process = spawn("", program=("-c", CONNECTS))
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number


def test_a_taken_port_is_named():
    with socket.create_server(("", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(DavError, match=f"cannot listen at the port of --coordinator={where}"):
            processes._check_port(where)
    processes._check_port(where)


def test_the_flags_of_the_command_line_are_read_and_refused():
    from dav.main import parse_all

    config = ["dav", "--config=configs/student.py"]
    *_, start, _ = parse_all([*config, "--coordinator=h:1", "--process_id=3", "--num_processes=4"])
    assert start["coordinator"] == "h:1" and (start["process_id"], start["num_processes"]) == (3, 4)
    with pytest.raises(ConfigError, match="process_id"):
        parse_all([*config, "--process_id=one"])


def test_several_processes_work_on_one_stage_at_a_time(monkeypatch):
    from dav import main

    for job in main.JOBS:
        main.check_job(job)
    monkeypatch.setattr(processes, "is_alone", lambda: False)
    for job in ("auto", "prepare"):
        with pytest.raises(ConfigError, match="--job=prepare --num_processes=1"):
            main.check_job(job)
    for job in ("train", "label", "evaluate", "plan"):
        main.check_job(job)


@pytest.mark.parametrize(
    ("flag", "folder"), [("workdir", "run/compiled"), ("/c", "/c"), ("", None)]
)
def test_compiled_programs_are_kept_where_the_flag_says(monkeypatch, flag, folder):
    from dav import main
    from dav.runtime import compiled

    kept = []
    monkeypatch.setattr(compiled, "keep_programs", kept.append)
    main.begin("run", compilation_cache=flag, num_processes=1)
    assert kept == ([folder] if folder else [])
