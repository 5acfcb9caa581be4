"""Google Landmarks v2 on a miniature of its archives, and unpacked."""

import hashlib

import pytest
from plain_images import check_stored, encoded, put, put_tar, read_all

from dav.data.builders.google_landmarks import BUILDERS
from dav.errors import DavError

(LANDMARKS,) = BUILDERS
IDS = ("0a1b2c3d4e5f6071", "00ab34cd56ef7801", "fedcba9876543210", "0a1f2c3d4e5f6071")


def path_of(name):
    return f"{name[0]}/{name[1]}/{name[2]}/{name}.jpg"


def files(*numbers):
    return {path_of(IDS[number]): encoded(number) for number in numbers}


def with_sums(raw):
    """Two archives with their MD5 files, as download-dataset.sh leaves them."""
    for number, held in enumerate([(0, 1), (2, 3)]):
        path = put_tar(raw / f"images_{number:03d}.tar", files(*held))
        line = f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n"
        put(raw, {f"md5.{path.stem}.txt": line.encode()})
    return raw


@pytest.mark.parametrize("place", ["train", "."])
def test_archives(tmp_path, place):
    with_sums(tmp_path / place)
    expected = [(place, "images_000.tar"), (place, "images_001.tar")]
    assert LANDMARKS.plan(tmp_path) == {"train": expected}
    items = read_all(LANDMARKS, tmp_path)
    assert [[frame.id for frame in item] for item in items] == [list(IDS[:2]), list(IDS[2:])]
    assert [frame.image for item in items for frame in item] == [encoded(n) for n in range(4)]
    check_stored(items[1][0], 2)


def test_unpacked_gives_the_same_images(tmp_path):
    put(tmp_path / "train", files(0, 1, 2, 3) | {"train.csv": b"id,url,landmark_id\n"})
    assert LANDMARKS.plan(tmp_path) == {"train": [("train", "0/0/a", "0/a/1", "f/e/d")]}
    ((*frames,),) = read_all(LANDMARKS, tmp_path)
    assert [frame.id for frame in frames] == [IDS[1], IDS[0], IDS[3], IDS[2]]
    assert [frame.image for frame in frames] == [encoded(number) for number in (1, 0, 3, 2)]


def test_eight_folders_make_an_item(tmp_path):
    names = [f"0/{second}/{third}/0{second}{third}.jpg" for second in "1f" for third in "05abcdef"]
    put(tmp_path, {name: b"x" for name in names})
    items = LANDMARKS.plan(tmp_path)["train"]
    assert [len(item) for item in items] == [9, 9]
    read = [frame.id for item in read_all(LANDMARKS, tmp_path) for frame in item]
    assert read == [name[-7:-4] for name in names]


def test_archives_that_are_unpacked_too_are_read_once(tmp_path):
    put(with_sums(tmp_path), files(0, 1, 2, 3))
    assert sum(len(item) for item in read_all(LANDMARKS, tmp_path)) == 4


def test_an_archive_of_another_sum_is_named(tmp_path):
    path = with_sums(tmp_path) / "images_001.tar"
    listed = tmp_path / "md5.images_001.txt"
    listed.write_text(listed.read_text().upper())  # of the same sum
    assert len(read_all(LANDMARKS, tmp_path)) == 2
    content = bytearray(path.read_bytes())
    content[1300] ^= 1  # inside an image: the archive itself stays whole
    path.write_bytes(content)
    with pytest.raises(DavError, match=r"images_001.tar has the MD5 .*md5.images_001.txt says"):
        read_all(LANDMARKS, tmp_path)


def test_sums_may_stand_in_the_folder_of_the_source(tmp_path):
    with_sums(tmp_path / "train")
    (tmp_path / "md5sum" / "train").mkdir(parents=True)
    for path in (tmp_path / "train").glob("md5.*"):
        path.rename(tmp_path / "md5sum" / "train" / path.name)
    assert len(read_all(LANDMARKS, tmp_path)) == 2
    put(tmp_path / "md5sum/train", {"md5.images_000.txt": b"0" * 32})
    with pytest.raises(DavError, match=r"images_000.tar"):
        read_all(LANDMARKS, tmp_path)


def test_a_missing_sum_is_named(tmp_path):
    (with_sums(tmp_path) / "md5.images_001.txt").unlink()
    with pytest.raises(DavError, match=r"images_001.tar has no md5.images_001.txt"):
        LANDMARKS.plan(tmp_path)
    (tmp_path / "md5.images_000.txt").unlink()
    assert len(read_all(LANDMARKS, tmp_path)) == 2  # none at all is fine


def test_gaps_and_truncation_are_named(tmp_path):
    with_sums(tmp_path)
    put_tar(tmp_path / "images_003.tar", files(0))
    put(tmp_path, {"md5.images_003.txt": b"0"})
    with pytest.raises(DavError, match="lacks images_002"):
        LANDMARKS.plan(tmp_path)
    path = put_tar(tmp_path / "cut" / "images_000.tar", files(0, 1))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DavError, match=r"cut/images_000.tar"):
        read_all(LANDMARKS, tmp_path / "cut")
