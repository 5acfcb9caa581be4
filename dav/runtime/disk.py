"""A disk that is full for a while."""

import time

from dav.errors import DavError, Stopped, is_disk_full

RETRY_S = 0.5, 10.0  # the first pause, and the longest: each is twice the one before


def wait_for_space(work, where, *, limit_s, tell, stopping):
    """work()'s result; while the disk is full, it is tried again, for at most `limit_s` seconds.

    tell(sentence) is called when the waiting begins and when it ends; stopping() → whether to give
    up at once. Raises Stopped then, and DavError when the time is over; both name `where`.
    """
    begin, pause_s = None, RETRY_S[0]
    while True:
        try:
            result = work()
        except OSError as error:
            if not is_disk_full(error):
                raise
            if stopping():
                raise Stopped(
                    f"stopped, with no space left on device for {where}; make room, the same "
                    "command continues"
                ) from error
            waited_s = 0.0 if begin is None else time.monotonic() - begin
            if waited_s >= limit_s:
                raise DavError(
                    f"no space left on device for {where}, after waiting {waited_s:.0f} s; make "
                    "room and run the same command again, nothing half-written counts as done"
                ) from error
            if begin is None:
                begin = time.monotonic()
                tell(f"no space left on device for {where}: waiting up to {limit_s:.0f} s for room")
            _pause(min(pause_s, limit_s - waited_s), stopping)
            pause_s = min(2 * pause_s, RETRY_S[1])
        else:
            if begin is not None:
                tell(f"there is room in {where} again, after {time.monotonic() - begin:.0f} s")
            return result


def _pause(seconds, stopping):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(min(0.2, seconds))
