"""Objects365 v2 on a miniature of its patches."""

import pytest
from plain_images import check_stored, encoded, put, put_tar, read_all

from dav.data.builders.objects365 import BUILDERS
from dav.errors import DavError

(OBJECTS,) = BUILDERS
LEFTOVER = "objects365_v1_00215749.jpg.ddEA04F9"


def names(*numbers):
    return {f"objects365_v1_{number:08d}.jpg": encoded(number) for number in numbers}


def in_patch(patch, files):
    return {f"{patch}/{name}": content for name, content in files.items()}


def build(folder):
    """Patch 3 unpacked, 4 and 10 packed; what patch 4 is known to hold besides."""
    put(folder, in_patch("patch3", names(32, 31, 33)))
    put_tar(folder / "patch4.tar.gz", in_patch("patch4", names(*range(40, 46))), packed=True)
    for number in range(5, 10):
        put(folder, in_patch(f"patch{number}", names(number * 10)))
    content = names(101) | {LEFTOVER: b"\xff\xd8"}
    put_tar(folder / "patch10.tar.gz", in_patch("patch10", content), packed=True)


@pytest.mark.parametrize("place", ["train", "images/train", "."])
def test_packed_and_unpacked_patches(tmp_path, place):
    build(tmp_path / place)
    items = OBJECTS.plan(tmp_path, per_item=2)["train"]
    prefix = "" if place == "." else f"{place}/"
    assert items[:2] == [
        (f"{prefix}patch3", *["objects365_v1_00000031.jpg"] * 2, 1),
        (f"{prefix}patch3", "objects365_v1_00000032.jpg", "objects365_v1_00000033.jpg", 2),
    ]
    assert items[2:6] == [(f"{prefix}patch4.tar.gz", part, 4) for part in range(4)]
    assert items[-1] == (f"{prefix}patch10.tar.gz", 3, 4) and len(items) == 15
    frames = [frame for item in read_all(OBJECTS, tmp_path, per_item=2) for frame in item]
    numbers = [31, 32, 33, 40, 44, 41, 45, 42, 43, 50, 60, 70, 80, 90, 101]
    assert [frame.id for frame in frames] == [f"objects365_v1_{n:08d}" for n in numbers]
    assert [frame.image for frame in frames] == [encoded(number) for number in numbers]
    check_stored(frames[3], 40)


def test_all_images_in_one_folder(tmp_path):
    put(tmp_path / "images/train", names(3, 1, 2) | {LEFTOVER: b""})
    put_tar(tmp_path / "images/train/patch0.tar.gz", names(1), packed=True)  # left over
    frames = [frame for item in read_all(OBJECTS, tmp_path, per_item=2) for frame in item]
    assert [frame.image for frame in frames] == [encoded(number) for number in (1, 2, 3)]


def test_half_moved_images_are_refused(tmp_path):
    put(tmp_path / "train", names(1) | in_patch("patch0", names(2)))
    with pytest.raises(DavError, match=r"train and in .*patch0: move them all"):
        OBJECTS.plan(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_truncated_patch_is_named_by_each_of_its_parts(tmp_path, share):
    build(tmp_path)
    path = tmp_path / "patch4.tar.gz"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for part in range(4):
        with pytest.raises(DavError, match=r"patch4.tar.gz"):
            list(OBJECTS.read(tmp_path, ("patch4.tar.gz", part, 4)))


def test_a_missing_patch_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "patch4.tar.gz").unlink()
    with pytest.raises(DavError, match="lacks patch4 between patch3 and patch10"):
        OBJECTS.plan(tmp_path)
