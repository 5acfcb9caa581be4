"""Ctrl-C and SIGTERM as a request that a loop can honour between two steps."""

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
    """Inside, the first Ctrl-C or SIGTERM only sets the request; a second one interrupts."""
    request = StopRequest()

    def ask(number, frame):
        if request.requested:
            raise KeyboardInterrupt
        request.requested = True
        os.write(2, b"stopping after this step; once more to stop at once\n")

    before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
