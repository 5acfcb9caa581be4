"""Every reader against bytes written by hand or by another library, and against real files."""

import functools
import io
import json
import re
import struct
import zlib

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import OpenEXR
import pytest
from hypothesis import given
from PIL import Image

from dav.data import formats
from dav.errors import DavError

STEPS = np.array([[0, 1, 255, 256], [257, 4660, 65534, 65535]], np.uint16)
FLOATS = np.array([[0.5, -1, np.inf], [3, 4, 1e5]], np.float32)


@pytest.fixture
def fails(tmp_path):
    """fails(read, content, said): reading the content raises one error with the file's name."""

    def check(read, content, said, name="map.bin"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DavError, match=re.escape(str(path)) + ".*" + said) as caught:
            read(path)
        assert "\n" not in str(caught.value)

    return check


def grey_png(values, bits):
    """A grey PNG of any depth, written by hand."""
    height, width = values.shape
    places = np.arange(bits)[::-1]
    rows = (values[..., None].astype(np.int64) >> places & 1).reshape(height, -1)
    packed = np.packbits(rows.astype(np.uint8), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_steps_are_as_stored(tmp_path, bits):
    stored = STEPS & (2**bits - 1)
    (tmp_path / "steps.png").write_bytes(grey_png(stored, bits))
    read = formats.read_steps(tmp_path / "steps.png")
    assert read.dtype == (np.uint16 if bits == 16 else np.uint8)
    np.testing.assert_array_equal(read, stored)


def test_pgm_steps_are_big_endian_and_never_scaled(tmp_path):
    path = tmp_path / "steps.pgm"
    path.write_bytes(b"P5\n# Kinect\n4 2\n2047\n" + STEPS.astype(">u2").tobytes())
    np.testing.assert_array_equal(formats.read_steps(path), STEPS)
    path.write_bytes(b"P5 4 2 100\n" + bytes([0, 1, 2, 3, 4, 5, 99, 100]))
    np.testing.assert_array_equal(formats.read_steps(path), [[0, 1, 2, 3], [4, 5, 99, 100]])


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_steps_of_both_byte_orders(tmp_path, order):
    tags = [(256, 4), (257, 2), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (279, 16)]
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 24)
    table = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    path = tmp_path / "steps.tif"
    path.write_bytes(head + STEPS.astype(order + "u2").tobytes() + table)
    read = formats.read_steps(path)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, STEPS)


def test_steps_refuse_colour_floats_and_palettes(tmp_path, fails):
    for image in (
        Image.new("RGB", (4, 3)),
        Image.new("LA", (4, 3)),
        Image.new("P", (4, 3)),
    ):
        with io.BytesIO() as file:
            image.save(file, "PNG")
            fails(formats.read_steps, file.getvalue(), "not a grey image.*" + image.mode)
    with io.BytesIO() as file:
        Image.fromarray(FLOATS).save(file, "TIFF")
        fails(formats.read_steps, file.getvalue(), "not a grey image.*F")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then raises
def test_images_cut_short_are_errors_not_grey_pictures(fails):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for suffix in (".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm"):
        content = cv2.imencode(suffix, noise)[1].tobytes()
        for length in (len(content) // 3, len(content) * 9 // 10, len(content) - 12):
            fails(formats.read_rgb, content[:length], "", "cut" + suffix)
    fails(formats.read_steps, grey_png(STEPS, 16)[:-12], "truncated")


def test_a_flipped_bit_in_a_png_is_found(fails):
    content = bytearray(grey_png(STEPS, 16))
    content[50] ^= 4
    fails(formats.read_steps, bytes(content), "damaged.*IDAT")


def test_rgb_of_a_photograph(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(stored).save(tmp_path / "photo.png")
    read = formats.read_rgb(tmp_path / "photo.png")
    np.testing.assert_array_equal(read, stored)
    assert read.flags.writeable
    Image.fromarray(stored[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        formats.read_rgb(tmp_path / "grey.png"), np.dstack([stored[..., 0]] * 3)
    )


def test_rgb_is_not_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert formats.read_rgb(tmp_path / "turned.jpg").shape == (20, 40, 3)
    assert formats.image_size(tmp_path / "turned.jpg") == (20, 40)
    assert formats.image_size((tmp_path / "turned.jpg").read_bytes()) == (20, 40)


def test_rgb_refuses_maps(fails):
    fails(formats.read_rgb, grey_png(STEPS, 16), "map, not a photograph")


def test_size_is_read_from_the_header_alone(tmp_path, fails):
    (tmp_path / "head.png").write_bytes(grey_png(STEPS, 16)[:45])
    assert formats.image_size(tmp_path / "head.png") == (2, 4)
    fails(formats.image_size, b"no image", "not an image")
    with pytest.raises(DavError, match="an image of 4 bytes.*not an image"):
        formats.image_size(b"what")


def dpt(height, width, values):
    return struct.pack("<fii", 202021.25, width, height) + values.astype("<f4").tobytes()


def test_dpt(tmp_path, fails):
    (tmp_path / "frame.dpt").write_bytes(dpt(2, 3, FLOATS))
    np.testing.assert_array_equal(formats.read_dpt(tmp_path / "frame.dpt"), FLOATS)
    fails(formats.read_dpt, dpt(2, 3, FLOATS)[:-4], "take 24 bytes, it holds 20")
    fails(formats.read_dpt, dpt(1 << 20, 1 << 20, FLOATS), "it holds 24")
    fails(formats.read_dpt, dpt(-2, -3, FLOATS), "claims a size")
    fails(formats.read_dpt, grey_png(STEPS, 16), "no .dpt tag; it is a PNG image")


@pytest.mark.parametrize(("scale", "order"), [(b"-1.0", "<"), (b"0.003922", ">")])
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm_of_both_byte_orders_top_row_first(tmp_path, scale, order, channels):
    values = np.arange(2 * 3 * channels, dtype=np.float32).reshape(2, 3, channels)
    head = (b"PF" if channels == 3 else b"Pf") + b"\n3 2\n" + scale + b"\n"
    (tmp_path / "map.pfm").write_bytes(head + values[::-1].astype(order + "f4").tobytes())
    expected = values if channels == 3 else values[..., 0]
    np.testing.assert_array_equal(formats.read_pfm(tmp_path / "map.pfm"), expected)


def test_pfm_that_lies(fails):
    fails(formats.read_pfm, b"Pf\n99999 99999\n-1\n" + bytes(24), "it holds 24")
    fails(formats.read_pfm, b"Pf\n3 2\n0\n" + bytes(24), "byte order")
    fails(formats.read_pfm, b"P6 3 2 255\n" + bytes(18), "no PFM header; it is a PPM image")


def write_exr(path, compression=OpenEXR.ZIP_COMPRESSION, **channels):
    header = {"compression": compression, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, channels).write(str(path))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_channels_by_name(tmp_path, kind):
    values = np.arange(6, dtype=kind).reshape(2, 3)
    write_exr(tmp_path / "one.exr", R=values)
    read = formats.read_exr(tmp_path / "one.exr")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values)
    write_exr(tmp_path / "three.exr", R=values, G=values + 1, B=values + 2)
    np.testing.assert_array_equal(formats.read_exr(tmp_path / "three.exr", "G"), values + 1)
    with pytest.raises(DavError, match="three.exr.*its channels are.*asked for Z"):
        formats.read_exr(tmp_path / "three.exr", "Z")
    with pytest.raises(DavError, match="three.exr.*its channels are.*name one"):
        formats.read_exr(tmp_path / "three.exr")


def test_exr_cut_short_or_absurd(tmp_path, fails):
    write_exr(tmp_path / "map.exr", R=np.random.default_rng(0).random((64, 40), np.float32))
    content = (tmp_path / "map.exr").read_bytes()
    fails(formats.read_exr, content[:-20], "cannot be decoded|scanline")
    fails(formats.read_exr, content[: len(content) // 2], "cannot be decoded|scanline")
    window = struct.pack("<iiii", 0, 0, 39, 63)
    huge = content.replace(window, struct.pack("<iiii", 0, 0, 1 << 24, 1 << 24))
    fails(formats.read_exr, huge, "claims 16777217 × 16777217 pixels")
    fails(formats.read_exr, b"Pf\n", "no OpenEXR header; it is a PFM map")


def test_raw_floats_need_their_exact_size(tmp_path, fails):
    (tmp_path / "raw.JPG").write_bytes(FLOATS.astype("<f4").tobytes())
    np.testing.assert_array_equal(formats.read_float32(tmp_path / "raw.JPG", (2, 3)), FLOATS)
    read = functools.partial(formats.read_float32, shape=(2, 3))
    fails(read, bytes(20), "2 × 3 float32 take 24 bytes, it holds 20")
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    fails(read, jpeg, "it is a JPEG image")


def saved(values, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, values, **options)
    return file.getvalue()


@given(
    arrays.arrays(
        arrays.scalar_dtypes().filter(lambda kind: kind.kind in "biuf" and kind.itemsize <= 8),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=5),
    )
)
def test_npy_gives_what_numpy_wrote(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "any.npy"
    for array in (values, np.asfortranarray(values), values[..., None]):
        path.write_bytes(saved(array))
        read = formats.read_npy(path)
        np.testing.assert_array_equal(read, values)
        assert read.dtype == values.dtype.newbyteorder("=") and read.flags.writeable


def test_npy_that_lies(fails):
    fails(formats.read_npy, saved(FLOATS[0]), "not of 2 axes")
    fails(formats.read_npy, saved(FLOATS)[:-4], "take 24 bytes, it holds 20")
    huge = saved(FLOATS).replace(b"(2, 3), }        ", b"(2, 3000000000), }")
    fails(formats.read_npy, huge, "damaged|it holds")
    objects = saved(np.array([[{}]], object), allow_pickle=True)
    fails(formats.read_npy, objects, "not numbers")
    fails(formats.read_npy, b"PK\x03\x04" + bytes(50), "it is a zip or npz archive")


def test_npz_by_name(tmp_path, fails):
    path = tmp_path / "scan.npz"
    np.savez_compressed(path, data=FLOATS, K=np.eye(3))
    np.testing.assert_array_equal(formats.read_npz(path, "data")["data"], FLOATS)
    assert list(formats.read_npz(path)) == ["data", "K"]
    with pytest.raises(DavError, match="scan.npz.*no array 'depth'; it has data, K"):
        formats.read_npz(path, "depth")
    fails(formats.read_npz, path.read_bytes()[:-30], "damaged")
    fails(formats.read_npz, saved(FLOATS), "it is a NumPy array")


@pytest.mark.parametrize(
    "read",
    [
        formats.read_steps,
        formats.read_rgb,
        formats.image_size,
        formats.read_dpt,
        formats.read_pfm,
        formats.read_exr,
        functools.partial(formats.read_float32, shape=(2, 3)),
        formats.read_npy,
        formats.read_npz,
    ],
)
def test_what_is_no_file_at_all(tmp_path, fails, read):
    with pytest.raises(DavError, match="nowhere.*missing"):
        read(tmp_path / "nowhere")
    with pytest.raises(DavError, match="it is a folder"):
        read(tmp_path)
    fails(read, b"", "it is empty")
    if read is not formats.image_size:
        fails(read, b"<!DOCTYPE html><html>Quota exceeded", "web page.*download it again")
        fails(read, b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer")


def test_real_steps(extra_data):
    """OpenCV, which decodes with other libraries, agrees on every pixel."""
    samples = extra_data / "samples"
    for name in (
        "kitti_raw/proj_depth/image_02/0000000000.png",
        "lab_slambook2/depth/1.pgm",
        "middlebury2003/teddy/disp2.png",
        "nyu/sync_depth_00050.png",
        "sunrgbd/img_0063/depth_bfx/img_0063_abs.png",
    ):
        expected = cv2.imread(str(samples / name), cv2.IMREAD_UNCHANGED)
        read = formats.read_steps(samples / name)
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)
        assert formats.image_size(samples / name) == expected.shape


def test_real_nyu_raw_pgm_holds_kinect_codes_with_bytes_swapped(extra_data):
    """Its header says big-endian, its writer was not: 11-bit codes stand in swapped bytes."""
    codes = formats.read_steps(extra_data / "samples/other_formats/NYU_depth.pgm").byteswap()
    assert codes.shape == (480, 640)
    assert codes.max() == 2047
    assert 400 < np.median(codes[codes < 2047]) < 1092


def test_real_pfm_stands_upright_and_in_pixels(extra_data):
    """OpenCV agrees but for the scale's size, by which it divides."""
    folder = extra_data / "samples/middlebury2014/Motorcycle"
    disparity = formats.read_pfm(folder / "disp0GT.pfm")
    assert disparity.shape == formats.image_size(folder / "im0.png")
    text = (folder / "calib.txt").read_text()
    low, high = (float(re.search(rf"{name}=(\S+)", text)[1]) for name in ("vmin", "vmax"))
    finite = np.isfinite(disparity)
    assert 0.8 < finite.mean() < 1
    assert low - 1 < disparity[finite].min() and disparity[finite].max() < high + 1
    scaled = cv2.imread(str(folder / "disp0GT.pfm"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(disparity[finite] / 0.003922, scaled[finite], rtol=1e-4)


def test_real_npz_and_npy(extra_data):
    samples = extra_data / "samples"
    read = formats.read_npz(samples / "kitti_tiny/proj_depth/velodyne/image_02/0000000000.npz")
    depth_m = read["velodyne_depth"]
    assert depth_m.shape == formats.image_size(samples / "kitti_tiny/image_02/data/0000000000.png")
    assert 70 < depth_m.max() < 90 and 0.02 < (depth_m > 0).mean() < 0.1
    depth_m = formats.read_npy(samples / "nyu/fastdepth_depth.npy")
    assert depth_m.shape == (224, 224) and 0.5 < depth_m.min() < depth_m.max() < 10


def test_real_rgb(extra_data):
    samples = extra_data / "samples"
    manifest = (samples / "manifest.jsonl").read_text().splitlines()
    for line in manifest[:: len(manifest) // 8]:
        path = samples / json.loads(line)["rgb"]
        read = formats.read_rgb(path)
        assert read.shape == (*formats.image_size(path), 3)
        expected = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB).astype(int)
        assert np.abs(read - expected).mean() < 0.5
