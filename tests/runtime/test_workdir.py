import pytest

from dav import files
from dav.errors import ConfigError, DavError
from dav.runtime import workdir

CONFIG = {"steps": 3, "model": {"size": "mini"}, "sets": ["a", "b"]}


def test_a_folder_belongs_to_one_config(tmp_path):
    with workdir.claim(tmp_path, CONFIG):
        pass
    with workdir.claim(tmp_path, CONFIG):
        pass
    other = CONFIG | {"model": {"size": "vits"}}
    with (
        pytest.raises(ConfigError, match=r"model\.size: mini → vits"),
        workdir.claim(tmp_path, other),
    ):
        pass
    assert files.read_json(tmp_path / "config.json") == CONFIG


def test_tuples_equal_the_lists_that_json_makes_of_them(tmp_path):
    with workdir.claim(tmp_path, CONFIG | {"sets": ("a", "b")}):
        pass
    workdir.check_config(tmp_path, CONFIG | {"sets": ("a", "b")})


def test_one_process_at_a_time(tmp_path):
    with (
        workdir.claim(tmp_path, CONFIG),
        pytest.raises(DavError, match="another process"),
        workdir.claim(tmp_path, CONFIG),
    ):
        pass


def test_a_damaged_config_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"steps"')
    with pytest.raises(DavError, match=r"config\.json is damaged"):
        workdir.check_config(tmp_path, CONFIG)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    files.write_whole(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_whole(tmp_path / "a.txt", "new \ud800")
    assert (tmp_path / "a.txt").read_text() == "old"
