"""Standard output and error of a command, however it was started."""

import os
import sys


def prepare():
    """Lets stdout and stderr take any text, in any encoding, and does without closed ones."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            null = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
            setattr(sys, name, null)
        if hasattr(stream := getattr(sys, name), "reconfigure"):  # a notebook's has it not
            stream.reconfigure(errors="backslashreplace")
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a closed one's number must not become that of a result
    os.close(number)


def say(text, stream):
    """Writes text at once. A reader that has gone, as a closed terminal or a `tee` that the same
    Ctrl-C has ended, is forgotten: all that is still to come goes nowhere."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Else what is left in the buffer fails again when Python ends, with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
