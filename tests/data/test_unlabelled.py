"""What the unlabelled sets share: volumes, ranges of folders, parts of archives."""

import pickle

import hypothesis
import hypothesis.strategies as st
import pytest
from plain_images import put, put_tar

from dav.data import unlabelled
from dav.data.builders import (
    bdd100k,
    google_landmarks,
    imagenet21k,
    lsun,
    objects365,
    open_images,
    places365,
    sa1b,
)
from dav.errors import DavError

MODULES = (
    *(bdd100k, google_landmarks, imagenet21k, lsun),
    *(objects365, open_images, places365, sa1b),
)
SERIES = tuple(f"part{number}" for number in range(12))


def volumes(folder, series=SERIES):
    return [p.name for p in unlabelled.volumes(folder, r"part\d+", ".tar", "get it", series)]


def test_the_eight_sets_are_the_papers_62_million():
    builders = [builder for module in MODULES for builder in module.BUILDERS]
    assert len(builders) == 8
    assert sum(builder.counts["train"] for builder in builders) == 62_300_000
    assert {(builder.kind, builder.keep_images) for builder in builders} == {("unlabelled", False)}
    assert pickle.loads(pickle.dumps(builders)) == builders


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
def test_an_empty_raw_folder_and_none_say_where_they_looked(module, tmp_path):
    for raw in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DavError, match=str(raw)):
            module.BUILDERS[0].plan(raw)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a.jpg", True),
        ("./a/b.JPEG", True),
        ("a.png", True),
        ("a.webp", True),
        ("a.json", False),
        ("a.jpg.ddEA04F9", False),
        ("._a.jpg", False),
        ("__MACOSX/a.jpg", False),
        (".thumbs/a.jpg", False),
        ("jpg", False),
        (".", False),
    ],
)
def test_what_counts_as_an_image(name, known):
    assert unlabelled.is_image(name) == known


def test_volumes_come_in_the_order_of_their_series(tmp_path):
    put(tmp_path, {"part9.tar": b"", "part10.tar": b"", "part12.tar": b"", "notes.txt": b""})
    put(tmp_path / "part11", {"a.jpg": b""})
    assert volumes(tmp_path, SERIES[:12]) == ["part9.tar", "part10.tar", "part11"]
    assert volumes(tmp_path, ()) == ["part10.tar", "part11", "part12.tar", "part9.tar"]


@pytest.mark.parametrize("inside", [{}, {"part1/a.jpg": b""}, {"a.json": b""}, {"._a.jpg": b""}])
def test_a_volume_without_images_is_not_passed_over(tmp_path, inside):
    put(tmp_path / "part1", inside)
    put(tmp_path / "part2", {"a.jpg": b""})
    with pytest.raises(DavError, match="part1 holds no image"):
        volumes(tmp_path)
    if inside:
        with pytest.raises(DavError, match="part1 holds no image"):
            volumes(tmp_path, ())
    else:  # classes may be empty
        assert volumes(tmp_path, ()) == ["part1", "part2"]


def test_of_an_archive_and_its_folder_the_archive_is_read(tmp_path):
    put(tmp_path, {"part1.tar": b"", "part1/a.jpg": b""})
    assert volumes(tmp_path) == ["part1.tar"]


def test_a_gap_is_named_and_a_list_allows_it(tmp_path):
    put(tmp_path, {"part1.tar": b"", "part3.tar": b"", "part5.tar": b""})
    with pytest.raises(DavError, match=r"lacks part2, part4 between part1 and part5.*archives.txt"):
        volumes(tmp_path)
    put(tmp_path, {"archives.txt": b"part5.tar\n\npart1\npart5\n"})
    assert volumes(tmp_path) == ["part5.tar", "part1.tar"]


@pytest.mark.parametrize(("text", "missing"), [(b"part1\npart2\n", "part2"), (b"\n", "nothing")])
def test_what_is_listed_must_be_there(tmp_path, text, missing):
    put(tmp_path, {"part1.tar": b"", "archives.txt": text})
    with pytest.raises(DavError, match=f"archives.txt lists {missing}"):
        volumes(tmp_path)


@pytest.mark.parametrize("rest", ["part1.tar.part", "part1.tar.aria2", "Unconfirmed 1.crdownload"])
def test_unfinished_downloads_are_named(tmp_path, rest):
    put(tmp_path, {"part1.tar": b"", rest: b""})
    with pytest.raises(DavError, match=rest):
        volumes(tmp_path)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(number=st.integers(0, 40), per_item=st.integers(1, 12))
def test_ranges_hold_every_image_once_and_are_even(tmp_path_factory, number, per_item):
    folder = tmp_path_factory.mktemp("raw") / "place"
    names = [f"{place * 7919 % 9973:05d}.jpg" for place in range(number)]
    put(folder, {name: name.encode() for name in names} | {"x.json": b"", ".hidden.jpg": b""})
    items = unlabelled.ranges(folder.parent, folder, per_item)
    read = [list(unlabelled.range_frames(folder.parent, item, "p/")) for item in items]
    assert [f.id for part in read for f in part] == [f"p/{name[:-4]}" for name in sorted(names)]
    assert b"".join(f.image for part in read for f in part) == "".join(sorted(names)).encode()
    sizes = [len(part) for part in read]
    assert sizes == [item[-1] for item in items]
    assert all(size <= per_item for size in sizes) and len(sizes) == -(-number // per_item)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_a_range_that_has_changed_is_refused(tmp_path):
    put(tmp_path / "place", {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"})
    (item,) = unlabelled.ranges(tmp_path, tmp_path / "place")
    (tmp_path / "place" / "b.jpg").unlink()
    with pytest.raises(DavError, match="place has 2 images from a.jpg to c.jpg, and had 3"):
        list(unlabelled.range_frames(tmp_path, item))


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_of_an_archive_hold_every_image_once(tmp_path, parts):
    files = {f"./{number}.jpg": b"%d" % number for number in range(5)}
    path = put_tar(tmp_path / "a.tar", files | {"./3.json": b"{}"})
    read = [list(unlabelled.tar_frames(path, part, parts)) for part in range(parts)]
    assert sorted(frame.id for part in read for frame in part) == list("01234")
    assert all(frame.image == frame.id.encode() for part in read for frame in part)


def test_every_part_notices_a_broken_archive(tmp_path):
    path = put_tar(tmp_path / "a.tar", {f"{number}.jpg": b"x" * 2000 for number in range(4)})
    path.write_bytes(path.read_bytes()[: 512 + 3 * 2560])  # whole members, no end mark
    for part in range(2):
        with pytest.raises(DavError, match=r"a.tar"):
            list(unlabelled.tar_frames(path, part, 2))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(DavError, match="cannot list .*gone: No such file"):
        unlabelled.image_names(tmp_path / "gone")
