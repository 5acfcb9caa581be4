"""What stops a job, told in one sentence: what is wrong, where, and what to do."""

import errno
import os

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DavError(Exception):
    """Anything a user can act on: damaged data, a full disk."""

    exit_code = 1


class ConfigError(DavError):
    """A command or configuration that cannot be carried out as it stands, or not yet: what an
    earlier stage makes is missing. Starting it again would not change that."""

    exit_code = 2


class DamagedData(DavError):
    """All is done but for data that cannot be read: starting again would not change that."""

    exit_code = 65


class Stopped(DavError):
    """Stopped from outside after saving; the same command continues."""

    exit_code = 75


def is_disk_full(error):
    """Whether an error means a full disk or quota; libraries have kinds of their own for that, and
    tell it in their text alone."""
    full = isinstance(error, OSError) and error.errno in DISK_FULL
    return full or any(os.strerror(number) in str(error) for number in DISK_FULL)
