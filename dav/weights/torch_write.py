"""Writes tensors as PyTorch's torch.save does, without PyTorch."""

import struct
import zipfile

from dav.weights.torch_file import ARCHITECTURE_MEMBER

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same weights give the same file
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"  # an empty one
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"ctorch\nFloatStorage\n"
PROTOCOL, STOP = b"\x80\x02", b"."
MARK, TUPLE, REDUCE, SET_ITEMS, PERSISTENT, FALSE = b"(", b"t", b"R", b"u", b"Q", b"\x89"


def write_torch(path, tensors, *, root, record):
    """Writes {name: contiguous float32 array}; `root` is the archive's own name, `record` dav's
    note on the architecture, which PyTorch passes over."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name, content):
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}", EPOCH), content)

        add("data.pkl", _pickle(tensors))
        add("byteorder", "little")
        add(ARCHITECTURE_MEMBER, record)
        for index, array in enumerate(tensors.values()):
            add(f"data/{index}", array.astype("<f4", copy=False).tobytes())
        add("version", "3\n")


def _pickle(tensors):
    """The state dict as a pickle whose values stand in files of their own."""
    entries = [
        _text(name) + _tensor(index, array.shape)
        for index, (name, array) in enumerate(tensors.items())
    ]
    return PROTOCOL + ORDERED_DICT + MARK + b"".join(entries) + SET_ITEMS + STOP


def _tensor(index, shape):
    strides = [1]
    for side in reversed(shape[1:]):
        strides.insert(0, side * strides[0])
    count = shape[0] * strides[0]
    storage = MARK + _text("storage") + STORAGE + _text(str(index)) + _text("cpu") + _int(count)
    arguments = storage + TUPLE + PERSISTENT + _int(0) + _ints(shape) + _ints(strides)
    return REBUILD + MARK + arguments + FALSE + ORDERED_DICT + TUPLE + REDUCE


def _text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _int(value):
    return b"J" + struct.pack("<i", value)


def _ints(values):
    return MARK + b"".join(map(_int, values)) + TUPLE
