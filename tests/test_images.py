"""Any image file becomes uint8 RGB or one sentence."""

import io
import os
import random
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dav.errors import DavError
from dav.images import as_rgb, read_image, to_rgb

HEIGHT, WIDTH = 24, 32
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
# Smooth, different in every channel, and different under every turn.
PHOTO = np.stack([ROWS * 9 + COLUMNS, 250 - COLUMNS * 7, ROWS * 4 + COLUMNS * 3], -1)
PHOTO = PHOTO.astype(np.uint8)
IMAGE = Image.fromarray(PHOTO)
GREY16 = (ROWS * 2000 + COLUMNS * 500).astype(np.uint16)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(encoded):
    return read_image(io.BytesIO(encoded))


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, rows, *, depth=8, color=2, interlaced=0):
    """A PNG file from raw scan lines, for what no library here writes."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def interlaced_png():
    """PHOTO in the seven passes of Adam7."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = b""
    for top, left, down, right in (*starts, (1, 0, 2, 1)):
        for line in PHOTO[top::down, left::right]:
            rows += b"\0" + line.tobytes()
    return png(WIDTH, HEIGHT, rows, interlaced=1)


def cv2_encode(ending, array):
    return cv2.imencode(ending, array)[1].tobytes()


TRANSPARENT = IMAGE.convert("RGBA")
TRANSPARENT.putalpha(Image.fromarray((ROWS * 10).astype(np.uint8)))
FILES = {
    "jpeg": encode(IMAGE, "JPEG", quality=95),
    "jpeg_progressive": encode(IMAGE, "JPEG", quality=95, progressive=True),
    "jpeg_cmyk": encode(IMAGE.convert("CMYK"), "JPEG", quality=95),
    "jpeg_exif": encode(IMAGE, "JPEG", exif=oriented(6)),
    "jpeg_grey": encode(IMAGE.convert("L"), "JPEG"),
    "mpo": encode(IMAGE, "MPO", save_all=True, append_images=[IMAGE]),
    "png": encode(IMAGE, "PNG"),
    "png_interlaced": interlaced_png(),
    "png_16": encode(Image.fromarray(GREY16), "PNG"),
    "png_rgb16": cv2_encode(".png", PHOTO[..., ::-1].astype(np.uint16) * 257),
    "png_palette": encode(IMAGE.quantize(16), "PNG"),
    "png_transparent_palette": encode(IMAGE.quantize(16), "PNG", transparency=3),
    "png_rgba": encode(TRANSPARENT, "PNG"),
    "png_1bit": encode(IMAGE.convert("1"), "PNG"),
    "gif": encode(IMAGE, "GIF"),
    "gif_animated": encode(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(180)]),
    "webp": encode(IMAGE, "WEBP"),
    "webp_lossless": encode(IMAGE, "WEBP", lossless=True),
    "bmp": encode(IMAGE, "BMP"),
    "tiff": encode(IMAGE, "TIFF"),
    "tiff_lzw": encode(IMAGE, "TIFF", compression="tiff_lzw"),
    "tiff_jpeg": encode(IMAGE, "TIFF", compression="jpeg"),
    "tiff_rgb16": cv2_encode(".tiff", PHOTO[..., ::-1].astype(np.uint16) * 257),
    "tiff_float": encode(Image.fromarray(GREY16.astype(np.float32) / 65535), "TIFF"),
    "ppm": encode(IMAGE, "PPM"),
    "pgm": encode(IMAGE.convert("L"), "PPM"),
    "jpeg2000": encode(IMAGE, "JPEG2000"),
}


LOSSLESS = ("png", "png_interlaced", "png_rgb16", "webp_lossless", "bmp", "tiff", "tiff_lzw", "ppm")


@pytest.mark.parametrize("name", (*LOSSLESS, "tiff_rgb16", "jpeg2000"))
def test_lossless_files_are_exact(name):
    image = read(FILES[name])
    assert image.dtype == np.uint8 and image.flags.writeable and image.flags.c_contiguous
    np.testing.assert_array_equal(image, PHOTO)


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg_progressive", "jpeg_cmyk", "mpo", "webp", "tiff_jpeg", "gif"]
)
def test_lossy_files_are_near(name):
    assert np.abs(read(FILES[name]).astype(int) - PHOTO).mean() < 6


def test_a_cmyk_jpeg_is_not_a_negative():
    """Adobe's four-channel JPEGs are stored inverted; another decoder must see the same colours."""
    other = cv2.imdecode(np.frombuffer(FILES["jpeg_cmyk"], np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(read(FILES["jpeg_cmyk"]).astype(int) - other).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_once(kind, orientation):
    """The upright picture of each orientation, by the EXIF standard's own table: where its first
    row and column are."""
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = read(encode(IMAGE, kind, exif=oriented(orientation), **options))
    first_row_and_column = {  # of the stored image, on the upright one
        1: PHOTO,  # top, left
        2: PHOTO[:, ::-1],  # top, right
        3: PHOTO[::-1, ::-1],  # bottom, right
        4: PHOTO[::-1],  # bottom, left
        5: PHOTO.swapaxes(0, 1),  # left, top
        6: PHOTO.swapaxes(0, 1)[:, ::-1],  # right, top
        7: PHOTO.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: PHOTO.swapaxes(0, 1)[::-1],  # left, bottom
    }
    upright = first_row_and_column[orientation]
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= (12 if kind == "JPEG" else 0)


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_beside_a_whole_picture_is_no_orientation():
    exif = b"Exif\0\0" + b"MM\0\x2a\xff\xff\xff\xff" + b"junk"
    assert read(encode(IMAGE, "JPEG", exif=exif)).shape == PHOTO.shape


def test_transparency_lies_on_white():
    alpha = (ROWS * 10)[..., None] / 255
    expected = PHOTO * alpha + 255 * (1 - alpha)
    assert np.abs(read(FILES["png_rgba"]) - expected).max() <= 1
    grey = encode(TRANSPARENT.convert("LA"), "PNG")
    expected = np.asarray(IMAGE.convert("L"))[..., None] * alpha + 255 * (1 - alpha)
    assert np.abs(read(grey) - expected).max() <= 1


def test_a_transparent_palette_entry_is_white_and_the_others_are_theirs():
    indices = np.asarray(IMAGE.quantize(16))
    image, opaque = read(FILES["png_transparent_palette"]), read(FILES["png_palette"])
    assert (image[indices == 3] == 255).all() and (indices == 3).any()
    np.testing.assert_array_equal(image[indices != 3], opaque[indices != 3])
    expected = np.asarray(IMAGE.quantize(16).convert("RGB"))
    np.testing.assert_array_equal(opaque, expected)


def test_a_transparent_colour_of_an_rgb_png_is_white():
    image = read(encode(IMAGE, "PNG", transparency=tuple(int(v) for v in PHOTO[3, 4])))
    assert (image[3, 4] == 255).all() and (image[3, 5] == PHOTO[3, 5]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_becomes_8_linearly(kind):
    image = read(encode(Image.fromarray(GREY16), kind))
    np.testing.assert_array_equal(image, np.rint(GREY16 / 257)[..., None].repeat(3, -1))


def test_16_bit_big_endian_tiff():
    assert np.abs(read(cv2_encode(".tiff", GREY16)) - GREY16[..., None] / 257).max() <= 0.5
    image = Image.frombytes("I;16B", (WIDTH, HEIGHT), GREY16.astype(">u2").tobytes())
    np.testing.assert_array_equal(to_rgb(image)[..., 0], np.rint(GREY16 / 257))


def test_16_bit_colour_is_right_to_one_step():
    """The reader keeps the high byte, so between the steps of 257 it may be one lower."""
    deep = (PHOTO.astype(np.uint16) * 257)[..., ::-1] - np.uint16(100) * (PHOTO[..., ::-1] > 0)
    for ending in (".png", ".tiff"):
        image = read(cv2_encode(ending, deep)).astype(int)
        assert np.abs(image - deep[..., ::-1] / 257).max() <= 1


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 255.0), (200.0, 1.0)])
def test_floats_are_0_to_1_or_0_to_255(scale, expected):
    values = np.linspace(0, scale, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    image = read(encode(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(image[..., 0], np.rint(values * np.float64(expected)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 300.0])
def test_floats_of_unknown_range_are_refused(value):
    values = np.full((HEIGHT, WIDTH), value, np.float32)
    with pytest.raises(DavError, match="floats reach from"):
        read(encode(Image.fromarray(values), "TIFF"))


def test_integers_of_unknown_range_are_refused():
    values = np.full((HEIGHT, WIDTH), 70000, np.int32)
    with pytest.raises(DavError, match="integers reach from 70000"):
        read(encode(Image.fromarray(values), "TIFF"))


def test_an_animation_gives_its_first_frame():
    np.testing.assert_array_equal(read(FILES["gif_animated"]), read(FILES["gif"]))


def test_a_wrong_suffix_does_not_matter(tmp_path):
    (tmp_path / "photo.txt").write_bytes(FILES["png"])
    np.testing.assert_array_equal(read_image(str(tmp_path / "photo.txt")), PHOTO)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_an_error_and_never_half_a_picture(name):
    """Cut anywhere: refused, or, where only a trailer is gone, the whole picture."""
    encoded, whole = FILES[name], read(FILES[name])
    for length in {*range(0, len(encoded), max(1, len(encoded) // 40)), len(encoded) - 1}:
        try:
            image = read(encoded[:length])
        except DavError:
            continue
        np.testing.assert_array_equal(image, whole)
    with pytest.raises(DavError):
        read(encoded[: len(encoded) // 2 if name not in ("mpo", "gif_animated") else 100])


def make_fifo(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("no picture"), "not an image in a known format"),
        (lambda path: path.write_bytes(FILES["jpeg"][:500]), "it is truncated"),
        (lambda path: path.mkdir(), "it is a folder"),
        (make_fifo, "it is not a regular file"),
        (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
        (lambda path: path.write_bytes(png(60000, 60000, b"")), "more than 178 million pixels"),
        (lambda path: path.write_bytes(png(3000, 10, b"\0")), "a strip of 3000×10 px"),
        (
            lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            "not",
        ),
    ],
)
def test_the_reason_is_one_sentence_with_the_name(tmp_path, make, reason):
    path = tmp_path / "the photo.jpg"
    make(path)
    with pytest.raises(DavError, match=reason) as caught:
        read_image(path)
    said = str(caught.value)
    assert "the photo.jpg" in said and "\n" not in said


def test_a_name_of_any_bytes_can_be_told(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\nname.png"
    with open(path, "wb") as file:
        file.write(b"junk")
    with pytest.raises(DavError) as caught:
        read_image(os.fsdecode(path))
    assert str(caught.value).isprintable()
    str(caught.value).encode()


def test_arrays_and_pillow_images_are_understood(tmp_path):
    assert as_rgb(PHOTO) is PHOTO
    np.testing.assert_array_equal(as_rgb(PHOTO[..., 0]), PHOTO[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(as_rgb(IMAGE), PHOTO)
    (tmp_path / "a.png").write_bytes(FILES["png"])
    np.testing.assert_array_equal(as_rgb(tmp_path / "a.png"), PHOTO)
    np.testing.assert_array_equal(as_rgb(io.BytesIO(FILES["png"])), PHOTO)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PHOTO.astype(np.float32), r"float32 24×32×3"),
        (PHOTO[None], r"uint8 1×24×32×3"),
        (PHOTO[..., :2], r"uint8 24×32×2"),
        (PHOTO[:0], r"uint8 0×32×3"),
        (np.uint8(3), r"uint8 without a shape"),
        (np.zeros((600, 20, 3), np.uint8), r"a strip of 20×600 px"),
        (7, "an image of type int"),
        (None, "an image of type NoneType"),
        (Image.new("La", (20, 20)), "cannot read the Pillow image"),
    ],
)
def test_what_is_no_image_is_named(image, message):
    with pytest.raises(DavError, match=message):
        as_rgb(image)


def mutate(encoded, others, rng):
    """A damaged copy: flipped bits, a cut, a hole, a piece of another file, absurd numbers."""
    content = bytearray(encoded)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(content)), rng.randint(1, 64)
        kind = rng.choice(("flip", "cut", "hole", "splice", "double", "absurd"))
        if kind == "flip":
            content[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del content[max(at, 8) :]
        elif kind == "hole":
            del content[at : at + length]
        elif kind == "splice":
            other = rng.choice(others)
            start = rng.randrange(len(other))
            content[at : at + length] = other[start : start + length]
        elif kind == "double":
            content[at:at] = content[at : at + length]
        else:  # sizes and offsets stand near the start
            at = rng.randrange(min(len(content), 200))
            content[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
        if not content:
            return b""
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
def test_3000_mutated_files_give_an_image_or_one_sentence():
    rng, others = random.Random(20), list(FILES.values())
    read_whole, slowest = 0, 0.0
    for index in range(3000):
        name = list(FILES)[index % len(FILES)]
        encoded = mutate(FILES[name], others, rng)
        started = time.monotonic()
        try:
            image = read(encoded)
        except DavError as error:
            assert "\n" not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert min(image.shape) > 0
            read_whole += 1
        slowest = max(slowest, time.monotonic() - started)
    assert 150 < read_whole < 2850  # the damage is neither total nor none
    assert slowest < 10
