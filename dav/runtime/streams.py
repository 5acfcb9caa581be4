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
