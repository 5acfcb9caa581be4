"""What stops a job, told in one sentence: what is wrong, where, and what to do."""


class DavError(Exception):
    """Anything a user can act on: damaged data, missing stages, a full disk."""

    exit_code = 1


class ConfigError(DavError):
    """A command or configuration that cannot be carried out as it stands."""

    exit_code = 2


class Stopped(DavError):
    """Stopped from outside after saving; the same command continues."""

    exit_code = 75
