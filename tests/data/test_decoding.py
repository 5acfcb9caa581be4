import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dav.data.decoding import decode_image, decode_reduced, jpeg_size, reduction
from dav.errors import DavError

SIDES = st.integers(1, 4000)


def quarters(height, width):
    """Red, green / blue, white: no flip or turn leaves it as it is."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    return image


def jpeg(image, orientation=None, **options):
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.fromarray(image).save(file, "JPEG", quality=95, exif=exif, **options)
    return file.getvalue()


def encoded(image, suffix):
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def at_least(*size):
    return lambda height, width: size


def corners(image):
    """The colours near the four corners, clockwise."""
    top, left = image.shape[0] // 8, image.shape[1] // 8
    return [
        image[y, x].tolist() for y, x in ((top, left), (top, -left), (-top, -left), (-top, left))
    ]


@pytest.mark.parametrize(("needed", "factor"), [(400, 1), (200, 2), (101, 2), (100, 4), (50, 8)])
def test_a_photograph_is_reduced_as_far_as_what_is_needed_allows(needed, factor):
    data = jpeg(quarters(400, 600))
    image, size = decode_reduced(data, "a", at_least(needed, needed))
    assert size == (400, 600) and image.shape == (400 // factor, 600 // factor, 3)
    expected = corners(decode_image(data, "a"))
    np.testing.assert_allclose(corners(image), expected, atol=12)
    np.testing.assert_allclose(expected[0], (255, 0, 0), atol=12)  # RGB


def test_an_odd_size_is_rounded_up():
    image, size = decode_reduced(jpeg(quarters(401, 603)), "a", at_least(100, 100))
    assert size == (401, 603) and image.shape == (101, 151, 3)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_other_images_are_decoded_in_full(suffix):
    image, size = decode_reduced(encoded(quarters(40, 60), suffix), "a", at_least(5, 5))
    assert size == image.shape[:2] == (40, 60)
    np.testing.assert_allclose(corners(image)[1], (0, 255, 0), atol=12)


@pytest.mark.parametrize("needed", [10, 300])
def test_stored_images_are_upright_whatever_their_tags_say(needed):
    """Preparing has turned them; a tag that is left would turn them again."""
    image, size = decode_reduced(jpeg(quarters(320, 480), 6), "a", at_least(needed, needed))
    assert size == (320, 480)
    whole = decode_image(jpeg(quarters(320, 480)), "a")
    np.testing.assert_allclose(corners(image), corners(whole), atol=12)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_reduced_image_covers_what_is_needed(height, width, rows, columns):
    factor = reduction((height, width), (rows, columns))
    assert factor in (1, 2, 4, 8)
    if factor > 1:
        assert -(-height // factor) >= rows and -(-width // factor) >= columns


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_sizes_are_read_from_the_header(options):
    assert jpeg_size(jpeg(quarters(37, 211), 6, **options)) == (37, 211)
    grey = cv2.imencode(".jpg", np.zeros((12, 34), np.uint8))[1].tobytes()
    assert jpeg_size(grey) == (12, 34)
    assert jpeg_size(encoded(quarters(4, 6), ".png")) is None


@given(st.binary(max_size=64), st.integers(0, 400))
def test_a_damaged_header_gives_no_size_or_some_but_nothing_else(noise, cut):
    data = jpeg(quarters(37, 211))
    for bytes_ in (noise, data[:cut], data[:2] + noise + data[2:], b"\xff\xd8" + noise):
        size = jpeg_size(bytes_)
        assert size is None or min(size) > 0


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff", jpeg(quarters(30, 40))[:200]])
def test_what_is_no_image_is_named(data):
    for decode in (decode_image, lambda *a: decode_reduced(*a, at_least(5, 5))):
        with pytest.raises(DavError, match="example kitti/7 cannot be decoded"):
            decode(data, "kitti/7")


def test_reduced_decoding_loses_less_than_the_released_transform_does():
    """Against averaging over areas: halved by the decoder and linear, or in full and cubic."""
    data, size = jpeg(like_a_photograph(750, 1130)), (395, 262)
    full = decode_image(data, "a")
    reference = cv2.resize(full, size, interpolation=cv2.INTER_AREA).astype(float)
    reduced, _ = decode_reduced(data, "a", at_least(262, 262))
    assert reduced.shape == (375, 565, 3)

    def error(pixels, method):
        return np.square(cv2.resize(pixels, size, interpolation=method) - reference).mean()

    assert error(reduced, cv2.INTER_LINEAR) < error(full, cv2.INTER_CUBIC)


def like_a_photograph(height, width):
    """Noise whose amplitude is inverse to its frequency, as that of natural images."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))[..., None]
    phases = np.exp(2j * np.pi * rng.random((*frequency.shape[:2], 3)))
    image = np.fft.irfft2(phases / np.maximum(frequency, 1 / height), (height, width), axes=(0, 1))
    return np.clip(128 + 50 * image / image.std(), 0, 255).astype(np.uint8)
