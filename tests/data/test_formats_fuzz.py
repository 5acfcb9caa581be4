"""200 damaged files for each reader: a result or one DavError with its name, nothing else."""

import functools
import io
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import OpenEXR
import pytest
import scipy.io
from PIL import Image

from dav.data import containers, formats, lidar
from dav.errors import DavError

MUTANTS = 200
PATIENCE_S = 20
VALUES = np.random.default_rng(0).random((30, 40), np.float32)
RGB = (np.dstack([VALUES, VALUES[::-1], VALUES[:, ::-1]]) * 255).astype(np.uint8)
STEPS = (VALUES * 65535).astype(np.uint16)


def pillow(kind, pixels):
    def write(path):
        Image.fromarray(pixels).save(path, kind)

    return write


def raw(content):
    return functools.partial(Path.write_bytes, data=content)


def write_exr(path):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"R": VALUES, "G": VALUES.astype(np.float16)}).write(str(path))


def write_exr_piz(path):
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"R": VALUES}).write(str(path))


def write_npy(path):
    with open(path, "wb") as file:
        np.save(file, VALUES)


def write_npz(path, save=np.savez):
    with open(path, "wb") as file:
        save(file, depth=VALUES, K=VALUES[:3, :3])


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["depth"] = VALUES
        file.create_dataset("group/packed", data=VALUES, chunks=(10, 10), compression="gzip")


def read_hdf5(path):
    return containers.read_hdf5(path, "depth"), containers.read_hdf5(path, "group/packed")


def write_mat5(path, do_compression=False):
    cells = np.array([["ab", "cde"]], object)
    variables = {"x": VALUES, "text": "hello", "cells": cells}
    scipy.io.savemat(path, variables, do_compression=do_compression)


def write_mat73(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"], file["text"] = VALUES.T, np.array([[ord(letter)] for letter in "hello"], "u2")
        file["refs/0"] = file["text"][()]
        file["cells"] = np.array([[file["refs/0"].ref]], h5py.ref_dtype)
        kinds = {"x": "single", "text": "char", "refs/0": "char", "cells": "cell"}
        for name, kind in kinds.items():
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def read_mat(path):
    return containers.read_mat(path, "x", "text", "cells")


def write_tar(path, mode="w"):
    with tarfile.open(path, mode) as tar:
        for index in range(5):
            member = tarfile.TarInfo(f"folder/{index}.jpg")
            member.size = 700
            tar.addfile(member, io.BytesIO(VALUES.tobytes()[index : index + 700]))


def read_tar(path):
    return list(containers.iterate_tar(path))


LMDB_KEYS = [b"key%03d" % index for index in range(200)]


def write_lmdb(path):
    environment = lmdb.open(str(path), map_size=1 << 22, subdir=False, lock=False)
    with environment, environment.begin(write=True) as transaction:
        for index, key in enumerate(LMDB_KEYS):
            transaction.put(key, bytes([index]) * (9000 if index % 50 == 0 else 40))


def read_lmdb(path):
    return list(containers.iterate_lmdb(path, LMDB_KEYS[0], len(LMDB_KEYS)))


def write_video(path, suffix):
    named = path.with_suffix(suffix)
    writer = cv2.VideoWriter(str(named), cv2.VideoWriter_fourcc(*"mp4v"), 30, (40, 30))
    for shift in range(20):
        writer.write(np.roll(RGB, shift, axis=1))
    writer.release()
    named.rename(path)


def read_video(path):
    return list(containers.iterate_video(path, 5))


FLOATS = VALUES.astype("<f4").tobytes()
DPT = np.float32(202021.25).tobytes() + np.int32([40, 30]).tobytes() + FLOATS
READERS = {
    "png16": (pillow("PNG", STEPS), formats.read_steps),
    "tiff16": (pillow("TIFF", STEPS), formats.read_steps),
    "pgm16": (raw(b"P5 40 30 65535\n" + STEPS.astype(">u2").tobytes()), formats.read_steps),
    "png": (pillow("PNG", RGB), formats.read_rgb),
    "jpeg": (pillow("JPEG", RGB), formats.read_rgb),
    "webp": (pillow("WEBP", RGB), formats.read_rgb),
    "size": (pillow("JPEG", RGB), formats.image_size),
    "dpt": (raw(DPT), formats.read_dpt),
    "pfm": (raw(b"Pf\n40 30\n-1.0\n" + FLOATS), formats.read_pfm),
    "exr": (write_exr, functools.partial(formats.read_exr, channel="R")),
    "exr_piz": (write_exr_piz, formats.read_exr),
    "float32": (raw(FLOATS), functools.partial(formats.read_float32, shape=(30, 40))),
    "npy": (write_npy, formats.read_npy),
    "npz": (write_npz, formats.read_npz),
    "npz_packed": (functools.partial(write_npz, save=np.savez_compressed), formats.read_npz),
    "velodyne": (raw(FLOATS), lidar.read_velodyne),
    "hdf5": (write_hdf5, read_hdf5),
    "mat5": (write_mat5, read_mat),
    "mat5_packed": (functools.partial(write_mat5, do_compression=True), read_mat),
    "mat73": (write_mat73, read_mat),
    "tar": (write_tar, read_tar),
    "tar_gz": (functools.partial(write_tar, mode="w:gz"), read_tar),
    "lmdb_keys": (write_lmdb, containers.lmdb_keys),
    "lmdb": (write_lmdb, read_lmdb),
    "mov": (functools.partial(write_video, suffix=".mov"), read_video),
    "avi": (functools.partial(write_video, suffix=".avi"), read_video),
}


def mutant(content, random):
    """Flipped bits, a cut, insertions, other bytes, zeros or noise, rather near the header."""
    changed = bytearray(content)
    near = min(len(content), int(random.choice([64, 1024, len(content)])))
    place, run = int(random.integers(near)), int(random.integers(1, 30))
    kind = random.integers(6)
    if kind == 0:
        for index in random.integers(near, size=random.integers(1, 9)):
            changed[index] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del changed[random.integers(len(content)) :]
    elif kind == 2:
        changed[place:place] = random.bytes(run)
    elif kind == 3:
        changed[place : place + run] = random.bytes(run)
    elif kind == 4:
        changed[len(content) // 4 :] = bytes(len(content) - len(content) // 4)
    else:
        changed[random.choice([0, 16]) :] = random.bytes(len(content))
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged tags
@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_give_a_result_or_one_error(tmp_path, kind):
    write, read = READERS[kind]
    write(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    read(tmp_path / "whole")
    random = np.random.default_rng(len(kind))
    mutants = [mutant(content, random) for _ in range(MUTANTS)]

    def try_one(index):
        path = tmp_path / f"mutant{index}"
        path.write_bytes(mutants[index])
        begun = time.monotonic()
        try:
            read(path)
        except DavError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return True
        finally:
            path.unlink()
            assert time.monotonic() - begun < PATIENCE_S
        return False

    with ThreadPoolExecutor(4 if kind.startswith("lmdb") else 1) as threads:  # it waits
        refused = sum(threads.map(try_one, range(MUTANTS)))
    assert refused > MUTANTS / 5
