"""Why a command ends without having done its work: one message, and the exit code."""

import errno
import os
import sys

INTERRUPTED = "stopped; what was finished is kept, the same command continues"
UNUSABLE_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
UNUSABLE_PATH += (errno.ENAMETOOLONG, errno.ENOENT)


def explain(error, folder_options="--workdir or --config.data.root"):
    """One clear message for an error, and its exit code; unexpected ones keep their traceback.

    `folder_options` are the command's own that name folders, for the hint at an unusable path.
    """
    from dav.errors import DavError, Stopped, is_disk_full
    from dav.runtime import processes

    if isinstance(error, Stopped):  # whatever it was doing: on a full disk it may have waited
        return fail(str(error), error.exit_code)
    chain = list(causes(error))
    if any(is_disk_full(cause) for cause in chain):
        return fail(
            "no space left on device; make room and run the same command again, nothing "
            "half-written counts as done",
            1,
        )
    for cause in filter(processes.has_lost_another, chain):  # whatever was made of it on the way
        return fail(f"{processes.LOST} ({str(cause).strip().splitlines()[0]})", 1)
    for cause in chain:
        if isinstance(cause, DavError):
            return fail(str(cause), cause.exit_code)
        if isinstance(cause, KeyboardInterrupt):
            return fail(INTERRUPTED, 75)
        if isinstance(cause, BrokenPipeError):  # whoever read the output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if isinstance(cause, OSError) and cause.errno in UNUSABLE_PATH:
            where = f"{cause.filename}: {cause.strerror}"
            return fail(f"cannot use {where}; choose another {folder_options}", 1)
    import traceback

    traceback.print_exception(error)
    return fail(f"unexpected {type(error).__name__}; please report it with the lines above", 1)


def causes(error):
    """An error, what caused it, and the members of groups."""
    while error is not None:
        yield error
        for member in getattr(error, "exceptions", ()):
            yield from causes(member)
        error = error.__cause__ or error.__context__


def fail(message, code):
    """Prints one line to stderr; returns the exit code."""
    from dav.runtime import processes
    from dav.runtime.streams import say

    # Line and end in one go: several processes may share a terminal.
    say(f"{processes.name()}: {message}\n", sys.stderr)
    return code
