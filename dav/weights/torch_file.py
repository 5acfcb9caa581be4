"""PyTorch checkpoint files (.pth, .pt, .bin) without PyTorch: read as views of the mapped file.

Both formats are read: the zip archive since PyTorch 1.6, and the sequence of pickles before it.
"""

import math
import mmap
import zipfile
import zlib
from pathlib import PurePosixPath

import ml_dtypes  # noqa: F401, makes NumPy know bfloat16
import numpy as np

from dav.errors import DavError
from dav.weights.pickles import TensorView, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
NESTS = ("model", "state_dict", "module")  # where training code puts the weights
ARCHITECTURE_MEMBER = "dav.architecture.json"


def read_torch(path, source):
    """({tensor name: array}, what the archive calls itself, dav's own record or '').

    The arrays are read-only views of the file. Raises DavError for a file that is damaged, holds
    anything but tensors, or describes more values than it has.
    """
    with open(path, "rb") as file:
        content = map_file(file, source)
    try:
        read = _read_zip if content[:4] == b"PK\x03\x04" else _read_legacy
        tree, storages, name, record = read(path, content, source)
        state = _state_dict(tree, source)
        tensors = {key: _view(content, storages, state[key]) for key in state}
    except DavError:
        raise
    except Exception as error:  # a damaged file can break any line above
        raise DavError(
            f"{source} is damaged or not a checkpoint of PyTorch "
            f"({type(error).__name__}: {str(error)[:80]}); download it again"
        ) from None
    if sum(array.nbytes for array in tensors.values()) > len(content):
        raise DavError(f"{source} describes more values than it holds; download it again")
    return tensors, name, record


def map_file(file, source):
    """The content of an open file, mapped: no copy, and read as far as it is used."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise DavError(f"{source} is empty; download it again") from None


def _read_zip(path, content, source):
    """Tree, {storage key: (start, bytes)}, root name, dav's record; checks every checksum used."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1:
        raise DavError(f"{source} is a zip archive, but not one of PyTorch; name a .pth file")
    root = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{root}byteorder")
    if order and _read_member(content, order) != b"little":
        raise DavError(f"{source} has big-endian numbers; save it again on a common machine")
    storages = {
        name.removeprefix(f"{root}data/"): _span(content, member)
        for name, member in members.items()
        if name.startswith(f"{root}data/")
    }
    tree = unpickle(_read_member(content, members[pickles[0]]), source)
    record = members.get(root + ARCHITECTURE_MEMBER)
    record = _read_member(content, record).decode() if record else ""
    return tree, storages, root.strip("/"), record


def _read_member(content, member):
    start, size = _span(content, member)
    return content[start : start + size]


def _span(content, member):
    """Where a member's bytes stand. PyTorch stores them as they are: what is compressed, and could
    unfold to any size, is not its own."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{member.filename} is compressed")
    header = content[member.header_offset : member.header_offset + 30]
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = member.header_offset + 30 + names
    if header[:4] != b"PK\x03\x04" or start + member.file_size > len(content):
        raise ValueError(f"{member.filename} is cut off")
    with memoryview(content) as view, view[start : start + member.file_size] as part:
        if zlib.crc32(part) != member.CRC:
            raise ValueError(f"the checksum of {member.filename} is wrong")
    return start, member.file_size


def _read_legacy(path, content, source):
    """Magic number, version, system, tree, storage keys: a pickle each; then the values."""
    if content[:1] != b"\x80" or unpickle(content, source) != LEGACY_MAGIC:
        raise DavError(f"{source} is not a checkpoint of PyTorch; name a .pth file saved by it")
    protocol, system = unpickle(content, source), unpickle(content, source)
    if protocol != LEGACY_PROTOCOL or not system["little_endian"]:
        raise DavError(f"{source} was saved by an unknown PyTorch; save it again with a recent one")
    seen = {}
    tree = unpickle(content, source, seen)
    storages = {}
    for key in unpickle(content, source):
        count = int.from_bytes(content.read(8), "little")
        size = count * np.dtype(seen[key].dtype).itemsize
        storages[key] = (content.tell(), size)
        content.seek(size, 1)
    return tree, storages, "", ""


def _state_dict(tree, source):
    """The named tensors in a loaded tree, out of the nests that training code builds."""
    for _ in range(3):
        nested = isinstance(tree, dict) and [
            tree[name] for name in NESTS if isinstance(tree.get(name), dict)
        ]
        tree = nested[0] if nested else tree
    if not isinstance(tree, dict) or not tree:
        raise DavError(f"{source} holds no named tensors; save the state dict of a network")
    for key, value in tree.items():
        if not isinstance(key, str) or not isinstance(value, TensorView):
            raise DavError(
                f"{source} holds {str(key)[:80]!r}, which is not a tensor, among the weights; save "
                "the state dict of a network by itself"
            )
    if all(key.startswith("module.") for key in tree):
        return {key.removeprefix("module."): value for key, value in tree.items()}
    return tree


def _view(content, storages, tensor):
    """A tensor as a view of the file; raises ValueError unless it lies within its storage."""
    start, size = storages[tensor.storage.key]
    dtype = np.dtype(tensor.storage.dtype)
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor has a shape that is no shape")
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError("a tensor has more sides than strides")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((side - 1) * stride for side, stride in steps)
    held = min(tensor.storage.count, size // dtype.itemsize)
    if 0 in tensor.shape or last >= held or math.prod(tensor.shape) > held:
        raise ValueError("a tensor reaches beyond its values")
    values = np.frombuffer(content, dtype, held, start)[tensor.offset :]
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
