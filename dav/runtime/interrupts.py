"""Ctrl-C, SIGTERM and SIGHUP as a request that a loop can honour between two steps."""

import contextlib
import os
import signal


class StopRequest:
    """True once somebody has asked to stop."""

    def __init__(self):
        self.requested = False

    def __bool__(self):
        return self.requested


@contextlib.contextmanager
def stop_request():
    """Inside, Ctrl-C, SIGTERM and SIGHUP only set the request. Ctrl-C interrupts where it has been
    set; another SIGTERM does nothing, for schedulers may send it twice (Slurm to a task, and srun
    what it has got itself)."""
    request = StopRequest()

    def ask(number, frame):
        if request.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not request.requested:
            request.requested = True
            with contextlib.suppress(OSError):  # whoever read it has got the same signal
                os.write(2, b"stopping after this step; Ctrl-C to stop at once\n")

    before = {number: signal.signal(number, ask) for number in asking()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asking():
    """The signals by which a process is asked to end; SIGHUP unless it is ignored, as by nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP]))
