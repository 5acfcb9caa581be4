"""HDF5, MATLAB, tar, LMDB and video: what they hold comes out in order and whole, or not at all."""

import io
import re
import struct
import tarfile
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest
import scipy.io

from dav.data import containers
from dav.errors import DavError

MAP = np.arange(12, dtype=np.float32).reshape(3, 4)


def fails(path, said, read, *arguments):
    """One error, of one line, with the file's name."""
    with pytest.raises(DavError, match=re.escape(str(path)) + ".*" + said) as caught:
        result = read(path, *arguments)
        list(result)
    assert "\n" not in str(caught.value)


def cut(path, size):
    """The same file without what follows its first `size` bytes (negative: its last)."""
    content = path.read_bytes()[:size]
    path.write_bytes(content)


# HDF5


def test_hdf5_by_name_and_in_part(tmp_path):
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        file["depth"] = MAP
        file.create_dataset("group/packed", data=MAP, chunks=(2, 2), compression="gzip")
    np.testing.assert_array_equal(containers.read_hdf5(path, "depth"), MAP)
    np.testing.assert_array_equal(containers.read_hdf5(path, "group/packed"), MAP)
    np.testing.assert_array_equal(containers.read_hdf5(path, "group/packed", 1), MAP[1])


def test_hdf5_that_holds_something_else(tmp_path):
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        file["depth"], file["text"] = MAP, "hello"
        file.create_group("group")
        file.create_dataset("unwritten", (1000, 1000), np.float32)
    fails(
        path, "no 'dataset'; it has depth, group, text, unwritten", containers.read_hdf5, "dataset"
    )
    fails(path, "'text' is not an array of numbers", containers.read_hdf5, "text")
    fails(path, "'group' is not an array of numbers", containers.read_hdf5, "group")
    fails(path, "claims 4000000 bytes and stores 0", containers.read_hdf5, "unwritten")
    cut(path, -100)
    fails(path, "truncated", containers.read_hdf5, "depth")
    fails(tmp_path / "none.h5", "missing", containers.read_hdf5, "depth")


# MATLAB

VARIABLES = {
    "depths": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "testNdxs": np.array([[1], [2], [9]], np.uint16),
    "sensor": "Kinect",
    "paths": np.array([["a/b.jpg", "c"]], object),
    "whole": np.array([[True, False]]),
}


def write_mat73(path, depths, testNdxs, sensor, paths, whole):
    """What MATLAB writes: axes reversed, text as codes, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(name, values, kind):
            file[name] = values
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)

        def codes(text):
            return np.array([[ord(letter)] for letter in text], np.uint16)

        put("depths", depths.T, "single")
        put("testNdxs", testNdxs.T, "uint16")
        put("sensor", codes(sensor), "char")
        put("whole", whole.T.astype(np.uint8), "logical")
        for index, text in enumerate(paths[0]):
            put(f"#refs#/{index}", codes(text), "char")
        references = [[file[f"#refs#/{index}"].ref] for index in range(paths.size)]
        put("paths", np.array(references, h5py.ref_dtype), "cell")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_mat5(path, **variables):
    scipy.io.savemat(path, variables)


def write_mat5_packed(path, **variables):
    scipy.io.savemat(path, variables, do_compression=True)


@pytest.mark.parametrize("write", [write_mat5, write_mat5_packed, write_mat73])
def test_mat_of_every_version_has_matlabs_axes(tmp_path, write):
    path = tmp_path / "data.mat"
    write(path, **VARIABLES)
    read = containers.read_mat(path, "depths", "testNdxs", "sensor", "paths", "whole")
    for name in ("depths", "testNdxs"):
        np.testing.assert_array_equal(read[name], VARIABLES[name])
        assert read[name].dtype == VARIABLES[name].dtype
    assert read["whole"].tolist() == [[1, 0]]
    assert read["sensor"] == "Kinect" and read["paths"] == ["a/b.jpg", "c"]
    fails(path, "no variable 'splits'; it has.*testNdxs", containers.read_mat, "splits")
    cut(path, -40)
    fails(path, "", containers.read_mat, "whole")


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("packed", [False, True])
def test_mat5_numbers_of_every_kind_are_those_scipy_reads(tmp_path, kind, packed):
    path = tmp_path / "data.mat"
    values = np.array([[0, 1, 2], [3, 4, 100]], kind)
    scipy.io.savemat(path, {"a": values[:1, :1], "longer_name": values}, do_compression=packed)
    read = containers.read_mat(path, "a", "longer_name")
    expected = scipy.io.loadmat(path)
    for name in read:
        np.testing.assert_array_equal(read[name], expected[name])
        assert read[name].dtype == expected[name].dtype


def test_mat_beyond_numbers_and_text(tmp_path):
    path = tmp_path / "data.mat"
    scipy.io.savemat(path, {"s": {"field": 1}, "z": 1j, "c": np.array([[1, "a"]], object)})
    fails(path, "'s' is neither numbers nor text", containers.read_mat, "s")
    fails(path, "'z' is neither numbers nor text", containers.read_mat, "z")
    fails(path, "'c' has cells that are not text", containers.read_mat, "c")
    path.write_bytes(b"MATLAB 4" + bytes(200))
    fails(path, "no MATLAB file of version 5 or 7.3", containers.read_mat, "a")


# tar

MEMBERS = {"b/2.jpg": b"two" * 300, "a/1.jpg": b"one" * 400, "b/empty": b"", "ünicode": b"3"}


def write_tar(path, mode):
    with tarfile.open(path, mode) as tar:
        folder = tarfile.TarInfo("b")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in MEMBERS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_gives_regular_files_in_order(tmp_path, mode):
    path = tmp_path / "images.tar"  # the content tells whether it is packed
    write_tar(path, mode)
    assert list(containers.iterate_tar(path)) == list(MEMBERS.items())


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_cut_anywhere_is_an_error(tmp_path, mode):
    path = tmp_path / "images.tar"
    write_tar(path, mode)
    content = path.read_bytes()
    end = content.rstrip(b"\0") if mode == "w" else content
    boundaries = [512 * block for block in range(1, len(end) // 512)] if mode == "w" else []
    for size in (*boundaries, 100, len(end) // 2, len(end) - 9):
        path.write_bytes(content[:size])
        fails(path, "", containers.iterate_tar)


def test_tar_with_a_damaged_header_is_an_error(tmp_path):
    """The library itself takes it for the end."""
    path = tmp_path / "images.tar"
    write_tar(path, "w")
    content = bytearray(path.read_bytes())
    content[content.index(b"a/1.jpg") + 50] ^= 1
    path.write_bytes(content)
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) < len(MEMBERS)
    fails(path, "no end mark at byte", containers.iterate_tar)


def test_tar_whose_packed_bytes_are_damaged(tmp_path):
    path = tmp_path / "images.tar.gz"
    write_tar(path, "w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's checksum
    path.write_bytes(content)
    fails(path, "CRC", containers.iterate_tar)


# LMDB


def write_lmdb(path, count=300, folder=True):
    environment = lmdb.open(str(path), map_size=1 << 24, subdir=folder, lock=False)
    with environment, environment.begin(write=True) as transaction:
        for index in reversed(range(count)):
            value = bytes([index % 251]) * (9000 if index % 10 == 0 else 40)
            transaction.put(b"key%05d" % index, value)


@pytest.mark.parametrize("folder", [True, False])
def test_lmdb_keys_and_values(tmp_path, folder):
    path = tmp_path / "church"
    write_lmdb(path, folder=folder)
    keys = containers.lmdb_keys(path)
    assert keys == [b"key%05d" % index for index in range(300)]
    read = list(containers.iterate_lmdb(path, keys[20], 2))
    assert read == [(keys[20], bytes([20]) * 9000), (keys[21], bytes([21]) * 40)]
    fails(path, "no key b'none'", containers.iterate_lmdb, b"none", 1)
    fails(path, "has 5 entries from b'key00295' on, not 6", containers.iterate_lmdb, keys[295], 6)


def test_lmdb_left_half_way_leaves_no_process(tmp_path):
    write_lmdb(tmp_path / "church")
    keys = containers.lmdb_keys(tmp_path / "church")
    records = containers.iterate_lmdb(tmp_path / "church", keys[0], len(keys))
    next(records)
    records.close()
    for status in Path("/proc/self/task").glob("*/children"):
        for child in status.read_text().split():
            assert b"lmdb_child" not in Path(f"/proc/{child}/cmdline").read_bytes()


def test_lmdb_half_downloaded(tmp_path):
    path = tmp_path / "church.mdb"
    write_lmdb(path, folder=False)
    size = path.stat().st_size
    cut(path, size - 4096)
    fails(path, f"holds {size - 4096} of {size} bytes", containers.lmdb_keys)
    fails(tmp_path / "none", "missing", containers.lmdb_keys)
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "missing", containers.lmdb_keys)


def test_what_is_no_lmdb(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"PK\x03\x04" * 5000)
    fails(tmp_path, "no LMDB", containers.lmdb_keys)


def test_lmdb_that_kills_its_reader_is_an_error(tmp_path):
    path = tmp_path / "church.mdb"
    write_lmdb(path, folder=False)
    content = bytearray(path.read_bytes())
    content[8192:] = bytes(len(content) - 8192)  # a sparse file whose download has not come
    path.write_bytes(content)
    fails(path, "its reader died of it|damaged", containers.lmdb_keys)
    fails(path, "its reader died of it|damaged", containers.iterate_lmdb, b"key00001", 1)


# Video


def write_video(path, count=25):
    """Frames whose number is written in eight bands of black or white."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (128, 48))
    for index in range(count):
        bands = [255 * (index >> bit & 1) for bit in range(8)]
        frame = np.repeat(np.array(bands, np.uint8), 16)[None, :, None]
        writer.write(np.broadcast_to(frame, (48, 128, 3)).copy())
    writer.release()


def number(frame):
    assert frame.shape == (48, 128, 3) and frame.dtype == np.uint8
    return sum(int(frame[24, 16 * bit + 8, 0] > 127) << bit for bit in range(8))


@pytest.mark.parametrize("suffix", ["mov", "mp4", "avi"])
@pytest.mark.parametrize("every", [1, 10])
def test_video_gives_every_nth_frame(tmp_path, suffix, every):
    write_video(tmp_path / f"clip.{suffix}")
    frames = list(containers.iterate_video(tmp_path / f"clip.{suffix}", every))
    assert [index for index, _ in frames] == list(range(0, 25, every))
    assert [number(frame) for _, frame in frames] == list(range(0, 25, every))


def test_video_is_rgb(tmp_path):
    path = tmp_path / "red.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    ((_, frame),) = containers.iterate_video(path, 1)
    red, green, blue = frame.reshape(-1, 3).mean(axis=0)
    assert red > 200 and green < 50 and blue < 50


def with_durations(content, durations):
    """A mov or mp4, its index at the end, whose frames last so many ticks each."""
    start = content.index(b"stts") - 4
    size = int.from_bytes(content[start : start + 4], "big")
    table = b"".join(struct.pack(">II", 1, ticks) for ticks in durations)
    table = struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(durations)) + table
    changed = bytearray(content[:start] + table + content[start + size :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = changed.index(box) - 4
        grown = int.from_bytes(changed[place : place + 4], "big") + len(table) - size
        changed[place : place + 4] = grown.to_bytes(4, "big")
    return bytes(changed)


def test_video_of_variable_frame_rate_gives_each_frame_once(tmp_path):
    path = tmp_path / "clip.mov"
    write_video(path)
    durations = [[900, 20, 500][index % 3] for index in range(25)]
    path.write_bytes(with_durations(path.read_bytes(), durations))
    frames = list(containers.iterate_video(path, 2))
    assert [number(frame) for _, frame in frames] == list(range(0, 25, 2))


def test_video_cut_short_is_an_error(tmp_path):
    path = tmp_path / "clip.mov"
    write_video(path)
    content = path.read_bytes()
    for size in (len(content) - 1, len(content) // 2, 40, 20):
        path.write_bytes(content[:size])
        fails(path, "cut off|no index", containers.iterate_video, 1)


def test_video_with_its_middle_missing_is_an_error(tmp_path):
    path = tmp_path / "clip.mov"
    write_video(path)
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start + 100 : end] = bytes(end - start - 100)
    path.write_bytes(content)
    fails(path, "only . of its 25 frames|no video", containers.iterate_video, 1)


def test_what_is_no_video(tmp_path):
    path = tmp_path / "clip.mov"
    path.write_bytes(b"no video at all" * 99)
    fails(path, "no video", containers.iterate_video, 1)
    fails(tmp_path / "none.mov", "missing", containers.iterate_video, 1)
