"""Readers of files that hold many arrays, images or frames: HDF5, MATLAB, tar, LMDB, video.

Whatever cannot be read whole, a half-finished download above all, raises DavError with the file's
name and what is wrong with it. Iterators raise it where they come upon it.
"""

import gzip
import importlib.util
import os
import select
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import msgpack
import numpy as np

from dav.data.mat5 import parse_mat5
from dav.data.reading import MAX_RATIO, check_file, needs, reading
from dav.errors import DavError

TAR_BLOCK = 512
PATIENCE_S = 120
LMDB_MAGIC = (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde")  # of either byte order
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # may begin a mov or mp4
DECODED = 0.5  # share of the frames counted by its header; edit lists may hide some of them


def read_hdf5(path, name, index=...):
    """Dataset `name` of an HDF5 file, or what `index` takes of it → array of numbers."""
    with reading(path):
        check_file(path)
        with _h5py().File(path, "r", locking=False) as file:
            return _dataset(file, name)[index]


def read_mat(path, *names):
    """Named variables of a MATLAB file, version 5 or 7.3 → dict, axes in MATLAB's order.

    Arrays of numbers, at least two axes as in MATLAB; str for text, list of str for cells of text.
    """
    with reading(path):
        check_file(path)
        with open(path, "rb") as file:
            header = file.read(116)
        if header.startswith(b"MATLAB 7.3"):
            return _read_mat73(path, names)
        if header.startswith(b"MATLAB 5.0"):
            return parse_mat5(Path(path).read_bytes(), names)
        raise DavError("it is no MATLAB file of version 5 or 7.3")


def iterate_tar(path):
    """(member name, bytes) of a .tar's or .tar.gz's regular files, in the file's order."""
    with reading(path):
        check_file(path)
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if member.isreg():
                        yield member.name, _member(tar, member)
                    tar.members = []  # else it keeps all it has seen
                stream.seek(tar.offset)
            # tarfile takes a damaged header for the end
            if stream.read(TAR_BLOCK) != bytes(TAR_BLOCK):
                raise DavError(
                    f"it has no end mark at byte {tar.offset}: a half-finished download, or damaged"
                )
            while packed and stream.read(1 << 20):  # gzip's checksum stands at its end
                pass


def lmdb_keys(path):
    """All keys of an LMDB, a folder or a file, in its order: list of bytes."""
    with reading(path):
        return [record["key"] for record in _lmdb_records(path, "keys", [])]


def iterate_lmdb(path, first, count):
    """(key, bytes) of `count` entries of an LMDB in its order, beginning with the key `first`."""
    with reading(path):
        for record in _lmdb_records(path, "values", [first, count]):
            yield record["key"], record["value"]


def iterate_video(path, every):
    """(frame index, uint8 RGB [H, W, 3]) of frames 0, every, 2 · every, … of a video.

    Frames are counted as they are decoded, whatever their time stamps; the rotation that the file
    asks for is applied.
    """
    with reading(path):
        check_file(path)
        _check_boxes(path)
        options = [cv2.CAP_PROP_N_THREADS, 1]  # the work is spread over processes already
        video = cv2.VideoCapture(str(Path(path).resolve()), cv2.CAP_FFMPEG, options)
        try:
            index, declared = 0, video.get(cv2.CAP_PROP_FRAME_COUNT)
            while video.grab():
                if index % every == 0:
                    whole, pixels = video.retrieve()
                    if not whole:
                        raise DavError(f"its frame {index} cannot be decoded")
                    yield index, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                index += 1
        finally:
            video.release()
        if not index:
            raise DavError("it is no video, or none that OpenCV's FFmpeg can decode")
        if index < DECODED * declared:
            raise DavError(f"only {index} of its {declared:.0f} frames can be decoded")


def _h5py():
    try:
        import h5py
    except ImportError:
        raise needs("h5py") from None
    return h5py


def _dataset(file, name):
    if name not in file:
        raise DavError(f"it has no {name!r}; it has {', '.join(file)}")
    dataset = file[name]
    if not isinstance(dataset, _h5py().Dataset) or dataset.dtype.kind not in "biuf":
        raise DavError(f"its {name!r} is not an array of numbers")
    _check_storage(dataset)
    return dataset


def _check_storage(dataset):
    """HDF5 fills what was never written with zeros: a damaged header must not ask for that."""
    stored, claimed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if claimed > MAX_RATIO * stored:
        raise DavError(f"its {dataset.name!r} claims {claimed} bytes and stores {stored}")


def _read_mat73(path, names):
    with _h5py().File(path, "r", locking=False) as file:
        _require_variables(names, file)
        return {name: _mat73_value(file, file[name], name) for name in names}


def _mat73_value(file, value, name):
    kind = value.attrs.get("MATLAB_class", b"")
    if value.attrs.get("MATLAB_empty", 0):
        return np.zeros([int(size) for size in value[()]])
    if kind == b"char":
        return "".join(map(chr, value[()].T.ravel(order="F")))
    if kind == b"cell":
        return [_mat73_value(file, file[cell], name) for cell in value[()].ravel()]
    return _dataset(file, value.name)[()].T


def _require_variables(names, held):
    for name in names:
        if name not in held:
            known = ", ".join(key for key in held if not key.startswith(("_", "#")))
            raise DavError(f"it has no variable {name!r}; it has {known}")


def _member(tar, member):
    content = tar.extractfile(member).read()
    if len(content) != member.size:
        raise DavError(f"it ends inside {member.name}: a half-finished download, or damaged")
    return content


def _lmdb_records(path, what, wanted):
    """What lmdb_child.py sends; DavError if it says so, dies or falls silent."""
    data = Path(path) / "data.mdb" if Path(path).is_dir() else Path(path)
    check_file(data)
    with open(data, "rb") as file:
        if file.read(20)[16:] not in LMDB_MAGIC:
            raise DavError("it is no LMDB")
    if not importlib.util.find_spec("lmdb"):
        raise needs("lmdb")
    program = Path(__file__).with_name("lmdb_child.py")
    command = [
        sys.executable,
        "-S",
        "-P",
        str(program),
        str(path),
        what,
    ]  # -S: starts twice as fast
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            with process.stdin as told:
                told.write(msgpack.packb(wanted))
            for record in _received(process.stdout):
                if "error" in record:
                    raise DavError(record["error"])
                if "done" in record:
                    return
                yield record
        finally:
            process.kill()
    raise DavError("it is damaged: its reader died of it")


def _received(stream):
    """The messages of a msgpack stream, as they come."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    while select.select([stream], [], [], PATIENCE_S)[0]:
        part = os.read(stream.fileno(), 1 << 20)
        if not part:
            return
        unpacker.feed(part)
        yield from unpacker
    raise DavError(f"its reader has been silent for {PATIENCE_S} s: it is damaged, or the disk is")


def _check_boxes(path):
    """Raises DavError for a mov or mp4 that is cut off: FFmpeg takes that for its end."""
    size, place, kinds = Path(path).stat().st_size, 0, []
    with open(path, "rb") as file:
        while place + 8 <= size:
            file.seek(place)
            header = file.read(16)
            kinds.append(header[4:8])
            if kinds[0] not in BOXES:
                return  # another container
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:], "big")
            if length == 0:  # up to the end
                length = size - place
            if length < 8 or place + length > size:
                raise DavError(
                    f"it is cut off at byte {size}: a half-finished download, or damaged"
                )
            place += length
    if b"moov" not in kinds:
        raise DavError("it has no index (moov box): a half-finished download, or damaged")
