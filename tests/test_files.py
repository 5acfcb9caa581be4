"""Paths that users give, and locks of file systems that have none."""

import errno
import fcntl
import os

import pytest

from dav.errors import ConfigError, DavError
from dav.files import hold, local_path


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://bucket", "hf:/x", "file:///tmp/x"])
def test_a_bucket_is_not_taken_for_a_folder_of_this_machine(text):
    with pytest.raises(ConfigError, match="is no path; mount the bucket"):
        local_path(text)


def test_paths_are_taken_as_they_are_but_for_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    names = ["/a", "a:b/c", "C:d", "./gs:x", "~/x"]
    assert [str(local_path(n)) for n in names] == ["/a", "a:b/c", "C:d", "gs:x", "/home/me/x"]


def test_a_run_in_a_bucket_is_refused_before_anything_is_made(dav, tmp_path, monkeypatch):
    code, _, err = dav("--config=configs/student.py", "--workdir=gs://b/run", "--job=plan")
    assert code == 2 and "gs://b/run is no path" in err


@pytest.mark.parametrize(
    "command",
    [
        "evaluate --weights=w --data=gs://b/d --out=out",
        "evaluate --weights=w --data=. --out=gs://b/o",
        "predict photo.jpg --weights=w --out=gs://b/o",
        "export --weights=w --layout=official --out=gs://b/o.pth",
        "data.prepare hrwsi --raw=s3://b/raw --out=out",
        "data.inspect gs://b/d",
        "data.sky megadepth --raw=gs://b/raw --out=out",
        "main --config=configs/student.py --compilation_cache=gs://b/c --job=plan",
    ],
)
def test_no_command_takes_a_bucket_for_a_folder(start, command):
    module, *arguments = command.split()
    _, err = (process := start(*arguments, module=f"dav.{module}")).communicate(timeout=60)
    assert process.returncode == 2 and "is no path; mount the bucket" in err, err


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with open(tmp_path / "lock", "a") as file, pytest.raises(DavError, match="lock: its file sys"):
        hold(file, "busy")
