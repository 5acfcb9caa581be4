"""LSUN on miniature databases."""

import hashlib

import lmdb
import pytest
from plain_images import check_stored, encoded, put, read_all

from dav.data.builders.lsun import BUILDERS
from dav.errors import DavError

(LSUN,) = BUILDERS


def key(number):
    """As published: forty hexadecimal digits."""
    return hashlib.sha1(b"%d" % number).hexdigest()


def build(raw, folder, numbers):
    with (
        lmdb.open(str(raw / folder), map_size=1 << 20) as database,
        database.begin(write=True) as writer,
    ):
        for number in numbers:
            writer.put(key(number).encode(), encoded(number, ".webp" if number % 2 else ".jpg"))
    return raw / folder / "data.mdb"


def test_ranges_of_keys_in_order(tmp_path):
    build(tmp_path, "kitchen_train_lmdb", range(5))
    build(tmp_path, "bedroom_train_lmdb", range(10, 13))
    build(tmp_path, "bedroom_val_lmdb", range(20, 22))
    build(tmp_path, "cat", range(30, 32))
    bedrooms, kitchens = sorted(range(10, 13), key=key), sorted(range(5), key=key)
    hexadecimal = [key(number).encode().hex() for number in (bedrooms[0], kitchens[0], kitchens[4])]
    items = LSUN.plan(tmp_path, per_item=4)["train"]
    assert items[0] == ("bedroom_train_lmdb", hexadecimal[0], 3)
    assert items[1] == ("kitchen_train_lmdb", hexadecimal[1], 4)
    assert items[2] == ("kitchen_train_lmdb", hexadecimal[2], 1)
    frames = [frame for item in read_all(LSUN, tmp_path, per_item=4) for frame in item]
    expected = [f"bedroom/{key(n)}" for n in bedrooms] + [f"kitchen/{key(n)}" for n in kitchens]
    assert [frame.id for frame in frames] == expected
    for frame, number in zip(frames, bedrooms + kitchens, strict=True):
        assert frame.image == encoded(number, ".webp" if number % 2 else ".jpg")
        check_stored(frame, number)


def test_a_database_that_is_cut_off_is_named(tmp_path):
    data = build(tmp_path, "tower_train_lmdb", range(40))
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(DavError, match="tower_train_lmdb"):
        LSUN.plan(tmp_path)


def test_a_database_that_has_changed_is_named(tmp_path):
    build(tmp_path, "tower_train_lmdb", range(4))
    (item,) = LSUN.plan(tmp_path)["train"]
    with (
        lmdb.open(str(tmp_path / "tower_train_lmdb")) as database,
        database.begin(write=True) as writer,
    ):
        writer.delete(key(2).encode())
    with pytest.raises(DavError, match="tower_train_lmdb: it has 3 entries from"):
        list(LSUN.read(tmp_path, item))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tower_train_lmdb.zip", r"tower_train_lmdb.zip must be unzipped"),
        ("bedroom_train_lmdb.zip.aria2", r"zip.aria2 is left of a download"),
        ("cat/data.mdb", "nothing matches"),
    ],
)
def test_what_is_missing_is_said(tmp_path, name, said):
    put(tmp_path, {name: b"PK"})
    with pytest.raises(DavError, match=said):
        LSUN.plan(tmp_path)
