"""SA-1B on a miniature of its archives and of what they unpack to."""

import pytest
from plain_images import check_stored, encoded, put, put_tar, read_all

from dav.data.builders.sa1b import BUILDERS
from dav.errors import DavError

(SA1B,) = BUILDERS


def members(*numbers, prefix="./"):
    """An archive's content: masks stand beside images."""
    files = {}
    for number in numbers:
        files[f"{prefix}sa_{number}.jpg"] = encoded(number)
        files[f"{prefix}sa_{number}.json"] = b'{"image": {}}'
    return files


def build(raw):
    """Archive 3 as it comes, 4 uncompressed, 5 unpacked."""
    extra = {"__MACOSX/._sa_1.jpg": b"x", "./.sa_9.jpg": b"x"}
    put_tar(raw / "sa_000003.tar", members(12, 11) | extra, packed=True)
    put_tar(raw / "sa_000004.tar", members(21, 22))
    put(raw / "sa_000005", members(32, 31, prefix=""))
    return put(raw, {"segment_anything_links.txt": b"file_name\tcdn_link\n"})


def test_archives_and_folders_give_the_same_ids(tmp_path):
    raw = build(tmp_path)
    assert SA1B.plan(raw) == {"train": ["sa_000003.tar", "sa_000004.tar", "sa_000005"]}
    frames = [frame for item in read_all(SA1B, raw) for frame in item]
    numbers = [12, 11, 21, 22, 31, 32]  # an archive's order, a folder's names
    assert [frame.id for frame in frames] == [f"sa_{number}" for number in numbers]
    assert [frame.image for frame in frames] == [encoded(number) for number in numbers]
    assert all(frame.target is None for frame in frames)
    check_stored(frames[2], 21)


def test_a_missing_archive_between_others_is_named(tmp_path):
    (build(tmp_path) / "sa_000004.tar").unlink()
    with pytest.raises(DavError, match="lacks sa_000004"):
        SA1B.plan(tmp_path)
    put(tmp_path, {"archives.txt": b"sa_000003.tar\nsa_000005.tar\n"})
    assert SA1B.plan(tmp_path) == {"train": ["sa_000003.tar", "sa_000005"]}


@pytest.mark.parametrize("name", ["sa_000003.tar", "sa_000004.tar"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5])
def test_a_truncated_archive_is_named(tmp_path, name, share):
    path = build(tmp_path) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DavError, match=name):
        list(SA1B.read(tmp_path, name))


def test_an_unfinished_download_is_named(tmp_path):
    put(build(tmp_path), {"sa_000006.tar.part": b""})
    with pytest.raises(DavError, match=r"sa_000006.tar.part"):
        SA1B.plan(tmp_path)


def test_all_in_one_folder_is_refused_with_the_layout(tmp_path):
    put(tmp_path, members(1, 2, prefix=""))
    with pytest.raises(DavError, match="a folder of its own name"):
        SA1B.plan(tmp_path)
