"""Small encoded images of known content, and archives of them, for tests of unlabelled sets."""

import gzip
import io
import tarfile

import cv2
import numpy as np

from dav.data.examples import decode_example, encode_example


def pixels(number):
    """uint8 [24, 40, 3] RGB: like no other number's, and like none of its own mirror images."""
    image = np.full((24, 40, 3), (10 + 5 * number % 200, 60, 200), np.uint8)
    image[:8, :16] = (250, 40, 10)
    return image


def encoded(number, suffix=".jpg"):
    """An image file's bytes of pixels(number)."""
    return cv2.imencode(suffix, pixels(number)[..., ::-1])[1].tobytes()


def put(folder, files):
    """Writes {relative path: bytes} below a folder, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def put_tar(path, files, packed=False):
    """Writes {member name: bytes} as a tar, gzip-compressed or not, its folders included."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def read_all(builder, raw, **options):
    """All of the training split, item by item: [[Frame, …], …]."""
    splits = builder.plan(raw, **options)
    assert list(splits) == ["train"]
    return [list(builder.read(raw, item)) for item in splits["train"]]


def stored(frame):
    """A frame's example after it has been stored, arrays losslessly."""
    image = frame.image
    if isinstance(image, np.ndarray):
        image = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    record = encode_example(frame, image)
    return decode_example(record | {key: record[key].encode() for key in ("id", "quantity")})


def check_stored(frame, number):
    """That a frame, stored, has its id and shows pixels(number)."""
    example = stored(frame)
    assert set(example) == {"id", "image"} and example["id"] == frame.id
    difference = np.abs(example["image"].astype(int) - pixels(number))
    assert difference[:, 20:].max() <= 12 and difference[:4, :12].max() <= 12
