"""Telling the user something: what cannot be told stops no work."""

import os


def say(text, stream):
    """Writes text at once. A reader that has gone, as a closed terminal or a `tee` that the same
    Ctrl-C has ended, is forgotten: all that is still to come goes nowhere."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Else what is left in the buffer fails again when Python ends, with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
