"""How the processes of a job find each other: the one function through which every job starts.

Rules, first match: the flags; a Slurm step of several tasks; several hosts of a TPU, by the
variables of GKE or the metadata of a Cloud TPU VM; else this process is alone. Who is who is then
found out by jax itself (jax.distributed.initialize). Where there is no TPU, no metadata server is
asked; a Slurm login shell, batch script or interactive step is one process.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time

from dav.errors import ConfigError, DamagedData, DavError, Stopped
from dav.runtime import interrupts

CONNECT_S = 300  # hosts of a pod come up minutes apart
HEARTBEAT_S = 30  # without a sign of life a process counts as lost: well below a minute
LAST_WORDS_S = 2
STOP_S = 60  # within which all processes end that were asked to stop
FAREWELL_S = 24 * 3600  # that the others wait at the end while process 0 draws the report
SLURM_STEP = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")  # what jax wants to see
LOST = (
    "another process of this run was lost, or the link to it (the lines above and its own log say "
    "more); start the same command again on all hosts: it continues from the last checkpoint"
)
# How the runtimes put it that a collective operation has lost its other side: a status code, and
# the library or what became of the link. jax raises it as one of several exceptions.
LOSS = re.compile(
    r"(?s)[A-Z_]{5,}: .*(?i:gloo|nccl|peer|heartbeat|coordination|connection|barrier|deadline)"
)

_name = "dav"  # of this process, as error messages have it
_handlers = []  # what the C library calls must not be collected


def start(coordinator="", process_id=None, num_processes=None, *, timeout_s=CONNECT_S):
    """Connects this process with the others of its job, if there are any; call it first and once.

    coordinator: HOST:PORT of process 0, process_id: 0 … num_processes − 1; all three or none.
    num_processes=1 alone keeps this process alone whatever its environment says. Afterwards only
    process 0 has a standard output, and the loss of one process ends all the others within a minute
    with one sentence and code 1. Raises ConfigError for flags that make no sense, DavError where
    the processes do not find each other; where jaxlib ends the process (time-out), code 1 as well.
    """
    given = check_flags(coordinator, process_id, num_processes)
    how = given if given is not None else detect(os.environ, on_tpu_vm())
    if not how:
        return
    import jax

    where = coordinator or "the place that the environment names"
    known = f"{process_id} of {num_processes}" if coordinator else "of a run"
    global _name
    _name = f"dav on {os.uname().nodename}"  # until it has a number
    if process_id == 0 and coordinator:
        _check_port(coordinator)
    _connect(how, f"process {known}", where, timeout_s)
    _name = f"dav, process {jax.process_index()} of {jax.process_count()}"
    _say_at_abort(f"{_name}: {LOST}", 2)
    if not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def check_flags(coordinator, process_id, num_processes):
    """The flags as arguments of jax.distributed.initialize; {}: one process; None: no flags."""
    given = (bool(coordinator), process_id is not None, num_processes is not None)
    if not any(given):
        return None
    if num_processes == 1 and not coordinator and not process_id:
        return {}
    if not all(given):
        raise ConfigError(
            "--coordinator, --process_id and --num_processes belong together: give all three or "
            "none (--num_processes=1 alone: one process, whatever the environment says)"
        )
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id} is not one of 0 … {num_processes - 1}, as "
            f"--num_processes={num_processes} has it"
        )
    if not re.fullmatch(r"\S+:\d{1,5}", coordinator):
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT of process 0")
    if num_processes == 1:
        return {}
    return {
        "coordinator_address": coordinator,
        "process_id": process_id,
        "num_processes": num_processes,
        "cluster_detection_method": "deactivate",
    }


def detect(environ, tpu_vm):
    """What the environment says of other processes, as check_flags puts it; {}: nothing."""
    if all(f"SLURM_{name}" in environ for name in SLURM_STEP):
        # An interactive step keeps the allocation's SLURM_NTASKS, but has one task itself.
        tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ["SLURM_NTASKS"]
        if int(tasks) > 1:
            return {"cluster_detection_method": "slurm", "local_device_ids": slurm_gpus(environ)}
        return {}
    if not tpu_vm:
        return {}
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if hosts:
        several = "," in hosts or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1
        return {"cluster_detection_method": "gketpu"} if several else {}
    if "TPU_SKIP_MDS_QUERY" in environ or "tpu" not in (environ.get("JAX_PLATFORMS") or "tpu"):
        return {}
    return {"cluster_detection_method": "gcetpu"}


def slurm_gpus(environ):
    """None: the GPU of the task's number on its node, jax's own rule; []: all that Slurm shows it,
    for it is alone there, or Slurm has given each task its own."""
    tasks = _tasks_here(environ)
    own = "SLURM_GPUS_PER_TASK" in environ or "SLURM_GPU_BIND" in environ
    own = own or "gpu" in environ.get("SLURM_TRES_PER_TASK", "")
    shown = environ.get("CUDA_VISIBLE_DEVICES")
    enough = shown is None or len(shown.split(",")) >= tasks
    return None if tasks > 1 and enough and not own else []


def _tasks_here(environ):
    """Tasks of the step on this node, from what Slurm writes as 4(x2),3."""
    counts = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", environ["SLURM_NTASKS"]).split(","):
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[min(int(environ.get("SLURM_NODEID", 0)), len(counts) - 1)]


def on_tpu_vm():
    """Whether jax sees TPU chips and their library here."""
    import jax  # noqa: F401  looks for them when it is imported
    from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm

    return running_in_cloud_tpu_vm


def is_first():
    """Whether this is process 0, the one that writes logs."""
    import jax

    return jax.process_index() == 0


def is_alone():
    """Whether `start` found no other process. Touches no device."""
    return _name == "dav"


def name():
    """`dav`, or with others `dav, process 1 of 4`: who speaks in an error message."""
    return _name


def has_lost_another(error):
    """Whether an error is a collective operation's, since another process has gone."""
    return not is_alone() and bool(LOSS.match(str(error)))


def leave(code):
    """Ends one process of several at once if its job has not come to its end.

    A normal exit waits for all others, which may be waiting for this one; after a stop, which may
    have been asked of this process alone, it does so for a while.
    """
    if is_alone() or code in (0, DamagedData.exit_code):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    import jax

    if code == Stopped.exit_code:
        farewell = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        farewell.start()
        farewell.join(STOP_S)
    elif jax.distributed.is_initialized():  # all end with process 0, and may have words to say
        time.sleep(LAST_WORDS_S)
    os._exit(code)


def _check_port(coordinator):
    """Raises DavError if process 0 cannot listen; jaxlib may crash where it notices itself."""
    try:
        with socket.create_server(("", int(coordinator.rpartition(":")[2]))):
            pass
    except (OSError, OverflowError) as error:
        raise DavError(
            f"process 0 cannot listen at the port of --coordinator={coordinator} ({error}); take "
            "another"
        ) from None


def _connect(how, who, where, timeout_s):
    """jax.distributed.initialize; jaxlib answers a time-out with abort(), not with an exception."""
    import jax

    late = (
        f"{_name}: {who} did not meet all the others at {where} within {timeout_s} s: were all "
        "started, and can this host reach that port?"
    )
    with _own_last_words(late):
        try:
            jax.distributed.initialize(
                **how,
                initialization_timeout=timeout_s,
                heartbeat_timeout_seconds=HEARTBEAT_S,
                shutdown_timeout_seconds=FAREWELL_S,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DavError(
                f"{who} cannot connect at {where} ({reason}): are all processes started alike?"
            ) from error


@contextlib.contextmanager
def _own_last_words(text):
    """Inside, abort() says `text` alone, and Ctrl-C, SIGTERM and SIGHUP end the process at once.

    As the first process of a container, none is ended by a signal that it does not handle.
    """
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    before = {number: signal.getsignal(number) for number in interrupts.asking()}
    for number in before:
        _handle_in_c(number, lambda number: os._exit(128 + number))
    sys.stderr.flush()
    _say_at_abort(text, stderr)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        _say_at_abort(f"{_name}: {LOST}", 2)
        os.close(null)
        os.close(stderr)
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_at_abort(text, stream):
    """Has abort() end the process with a sentence and code 1, without a core dump.

    jaxlib (0.10) gives up a job by abort() and cannot be told to call Python in its place: the
    callback that it takes fails on its own argument, an absl::Status.
    """

    def say(number):
        os.write(stream, f"{text}\n".encode())
        os._exit(1)

    _handle_in_c(signal.SIGABRT, say)


def _handle_in_c(number, action):
    """Has a signal call action(number) at once, even while the main thread is in a library; what
    signal.signal sets is called only when that has returned."""
    _handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(action))
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal(ctypes.c_int(number), _handlers[-1])
