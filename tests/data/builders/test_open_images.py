"""Open Images on miniatures of its folders."""

import pytest
from plain_images import check_stored, encoded, put, put_tar, read_all

from dav.data.builders.open_images import BUILDERS
from dav.errors import DavError

(OPEN_IMAGES,) = BUILDERS
IDS = ("a3000000000000c1", "a1000000000000c2", "a2000000000000c3", "b0000000000000c4")


def files(*numbers):
    return {f"{IDS[number]}.jpg": encoded(number) for number in numbers}


def unpacked(folder):
    put(folder / "train_a", files(0, 1, 2) | {"a4.jpg.6eF5b5da": b"half"})
    put(folder / "train_b", files(3))


@pytest.mark.parametrize("place", [".", "train"])
def test_archives_side_by_side(tmp_path, place):
    unpacked(tmp_path / place)
    prefix = "" if place == "." else f"{place}/"
    assert OPEN_IMAGES.plan(tmp_path, per_item=2)["train"] == [
        (f"{prefix}train_a", f"{IDS[1]}.jpg", f"{IDS[1]}.jpg", 1),
        (f"{prefix}train_a", f"{IDS[2]}.jpg", f"{IDS[0]}.jpg", 2),
        (f"{prefix}train_b", f"{IDS[3]}.jpg", f"{IDS[3]}.jpg", 1),
    ]
    frames = [frame for item in read_all(OPEN_IMAGES, tmp_path, per_item=2) for frame in item]
    assert [frame.id for frame in frames] == [IDS[number] for number in (1, 2, 0, 3)]
    assert [frame.image for frame in frames] == [encoded(number) for number in (1, 2, 0, 3)]
    check_stored(frames[0], 1)


@pytest.mark.parametrize("place", [".", "train"])
def test_one_folder_gives_the_same_ids(tmp_path, place):
    put(tmp_path / place, files(0, 1, 2, 3) | {"image_ids.csv": b""})
    frames = [frame for item in read_all(OPEN_IMAGES, tmp_path) for frame in item]
    assert [frame.id for frame in frames] == [IDS[number] for number in (1, 2, 0, 3)]


def test_archives_must_be_unpacked(tmp_path):
    unpacked(tmp_path)
    put_tar(tmp_path / "train_a.tar.gz", files(0), packed=True)  # unpacked: may stay
    assert len(OPEN_IMAGES.plan(tmp_path)["train"]) == 2
    put_tar(tmp_path / "train_c.tar.gz", {}, packed=True)
    with pytest.raises(DavError, match=r"train_c.tar.gz must be unpacked \(tar -xzf"):
        OPEN_IMAGES.plan(tmp_path)
    put(tmp_path, {"archives.txt": b"train_a\ntrain_b\n"})
    assert len(OPEN_IMAGES.plan(tmp_path)["train"]) == 2


def test_a_folder_without_images_beside_its_archive_is_not_passed_over(tmp_path):
    unpacked(tmp_path)
    put_tar(tmp_path / "train_c.tar.gz", files(0), packed=True)
    put(tmp_path / "train_c/train_c", files(0))
    with pytest.raises(DavError, match="train_c holds no image"):
        OPEN_IMAGES.plan(tmp_path)


def test_gaps_and_unfinished_downloads_are_named(tmp_path):
    unpacked(tmp_path)
    put(tmp_path / "train_8", files(3))
    with pytest.raises(DavError, match="lacks train_9"):
        OPEN_IMAGES.plan(tmp_path)
    put(tmp_path, {"train_9.tar.gz.part": b""})
    with pytest.raises(DavError, match=r"train_9.tar.gz.part"):
        OPEN_IMAGES.plan(tmp_path)


def test_two_layouts_at_once_are_refused(tmp_path):
    unpacked(tmp_path)
    put(tmp_path / "train", files(3))
    with pytest.raises(DavError, match="keep them in one of these places"):
        OPEN_IMAGES.plan(tmp_path)
