"""ImageNet-21K on a miniature of its classes."""

import pytest
from plain_images import check_stored, encoded, put, put_tar, read_all

from dav.data.builders.imagenet21k import BUILDERS
from dav.errors import DavError

(IMAGENET,) = BUILDERS


def build(raw, place="winter21_whole"):
    """Two classes as they come, one unpacked, one both."""
    folder = raw / place
    put_tar(folder / "n02084071.tar", {"n02084071_7.JPEG": encoded(1), "n02084071_10.JPEG": b"?"})
    put_tar(folder / "n00004475.tar", {"n00004475_3.JPEG": encoded(2)})
    put(folder / "n01440764", {"n01440764_2.JPEG": encoded(3), "readme.txt": b""})
    put_tar(folder / "n01440764.tar", {"n01440764_2.JPEG": encoded(3)})
    put(folder / "n01443537", {"n01443537_5.JPEG": encoded(4, ".png")})
    return raw


@pytest.mark.parametrize("place", ["winter21_whole", "."])
def test_classes_in_order_of_their_names(tmp_path, place):
    raw = build(tmp_path, place)
    names = ["n00004475.tar", "n01440764.tar", "n01443537", "n02084071.tar"]
    prefix = "" if place == "." else f"{place}/"
    assert IMAGENET.plan(raw) == {"train": [prefix + name for name in names]}
    frames = [frame for item in read_all(IMAGENET, raw) for frame in item]
    assert [frame.id for frame in frames] == [
        *("n00004475/n00004475_3", "n01440764/n01440764_2", "n01443537/n01443537_5"),
        *("n02084071/n02084071_7", "n02084071/n02084071_10"),
    ]
    expected = [encoded(2), encoded(3), encoded(4, ".png"), encoded(1), b"?"]
    assert [frame.image for frame in frames] == expected
    check_stored(frames[2], 4)  # PNG in spite of its name


def test_an_unpacked_class_gives_the_same_frames(tmp_path):
    raw = build(tmp_path, ".")
    packed = list(IMAGENET.read(raw, "n01440764.tar"))
    assert packed == list(IMAGENET.read(raw, "n01440764")) and len(packed) == 1


def test_a_list_of_classes(tmp_path):
    raw = build(tmp_path)
    put(raw / "winter21_whole", {"archives.txt": b"n02084071\n"})
    assert IMAGENET.plan(raw) == {"train": ["winter21_whole/n02084071.tar"]}


def test_a_truncated_class_is_named(tmp_path):
    path = build(tmp_path, ".") / "n02084071.tar"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DavError, match=r"n02084071.tar"):
        read_all(IMAGENET, tmp_path)


def test_the_outer_archive_must_be_unpacked(tmp_path):
    put(tmp_path, {"winter21_whole.tar.gz": b"\x1f\x8b"})
    with pytest.raises(DavError, match="tar -xzf winter21_whole.tar.gz"):
        IMAGENET.plan(tmp_path)
