"""Places365 on a miniature of its tree."""

import pytest
from plain_images import check_stored, encoded, put, read_all

from dav.data.builders.places365 import BUILDERS
from dav.errors import DavError

(PLACES,) = BUILDERS
TREE = {
    "s/swimming_pool/indoor/00000001.jpg": 5,
    "a/abbey/00000003.jpg": 3,
    "a/abbey/00000001.jpg": 1,
    "a/abbey/00000002.jpg": 2,
    "s/swimming_pool/outdoor/00000001.jpg": 6,
    "a/airfield/00000001.jpg": 4,
}


def build(folder):
    put(folder, {name: encoded(number) for name, number in TREE.items()})
    put(folder, {"a/abbey/._00000001.jpg": b"x", "__MACOSX/a/abbey/00000009.jpg": b"x"})


@pytest.mark.parametrize("name", ["data_large", "data_large_challenge", "data_large_standard"])
def test_classes_in_order_ids_whatever_the_folder(tmp_path, name):
    build(tmp_path / name)
    assert PLACES.plan(tmp_path, per_item=2)["train"][:3] == [
        (f"{name}/a/abbey", "00000001.jpg", "00000001.jpg", 1),
        (f"{name}/a/abbey", "00000002.jpg", "00000003.jpg", 2),
        (f"{name}/a/airfield", "00000001.jpg", "00000001.jpg", 1),
    ]
    frames = [frame for item in read_all(PLACES, tmp_path, per_item=2) for frame in item]
    assert [frame.id for frame in frames] == sorted(path[:-4] for path in TREE)
    assert [frame.image for frame in frames] == [encoded(number) for number in range(1, 7)]
    check_stored(frames[3], 4)


def test_two_extents_are_refused(tmp_path):
    build(tmp_path / "data_large_standard")
    build(tmp_path / "data_large_challenge")
    with pytest.raises(DavError, match="data_large_challenge and data_large_standard"):
        PLACES.plan(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data_256/a/abbey/00000001.jpg", "256 px cannot be used"),
        ("train_large_places365challenge.tar", r"tar -xf"),
        ("train_large_places365challenge.tar.part", r"challenge.tar.part"),
    ],
)
def test_what_is_missing_is_said(tmp_path, name, said):
    put(tmp_path, {name: b""})
    with pytest.raises(DavError, match=said):
        PLACES.plan(tmp_path)
