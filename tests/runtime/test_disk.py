import errno

import pytest

from dav.errors import DavError, Stopped
from dav.failure import explain
from dav.runtime import disk


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(disk, "RETRY_S", (0.01, 0.02))


def failing(times, number=errno.ENOSPC):
    """Work that fails so often, and then gives 7."""
    left = [times]

    def work():
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, "full")
        return 7

    return work


def wait(work, limit_s=9.0, stop=False):
    told = []
    options = {"limit_s": limit_s, "tell": told.append, "stopping": lambda: stop}
    return disk.wait_for_space(work, "/labels", **options), told


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_it_waits_until_there_is_room_and_says_so_twice(number):
    assert wait(failing(0)) == (7, [])
    found, told = wait(failing(5, number))
    assert found == 7 and len(told) == 2
    assert "waiting up to 9 s" in told[0] and "/labels" in told[0] and "room" in told[1]


def test_it_does_not_wait_for_ever():
    with pytest.raises(DavError, match="no space left.*/labels.*waiting"):
        wait(failing(10**6), limit_s=0.1)


def test_asked_to_stop_it_gives_up_and_is_to_be_started_again(capsys):
    with pytest.raises(
        Stopped, match="no space left on device for /labels.*same command"
    ) as raised:
        wait(failing(10**6), stop=True)
    assert explain(raised.value) == 75
    assert "stopped" in capsys.readouterr().err
    with pytest.raises(DavError) as raised:
        wait(failing(10**6), limit_s=0.0)
    assert explain(raised.value) == 1


def test_asked_to_stop_while_it_waits_it_is_stopped(monkeypatch):
    asked = [False]
    monkeypatch.setattr(disk.time, "sleep", lambda seconds: asked.__setitem__(0, True))
    options = {"limit_s": 9.0, "tell": lambda said: None, "stopping": lambda: asked[0]}
    with pytest.raises(Stopped):
        disk.wait_for_space(failing(10**6), "/labels", **options)


def test_other_errors_are_no_matter_of_space():
    with pytest.raises(PermissionError):
        wait(failing(1, errno.EACCES))
