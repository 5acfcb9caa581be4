import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dav.data import labels
from dav.errors import DavError

EXTREMES = [0.0, 1e-45, 1e-38, 1e-12, 1.0, 1.0000001, 3e38, -3e38, -1e-45, np.finfo("f4").max]
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))
SCALES = st.sampled_from([1e-44, 1e-38, 1e-12, 1e-3, 1, 1e4, 1e30])
OFFSETS = st.sampled_from([0, 1, -7.5, 1e4, -1e30])


def check(disparity):
    """The promise of a label: asked of the decoded map in double precision."""
    label = labels.decode_label(labels.encode_label("x", disparity))
    found, given = label["disparity"].astype(np.float64), disparity.astype(np.float64)
    spread = given.max() - given.min()
    assert label["disparity"].dtype == np.float32 and found.shape == given.shape
    assert np.abs(found - given).max() <= spread / 1000
    assert given.min() <= found.min() and found.max() <= given.max()
    np.testing.assert_array_equal(found[given == given.min()], given.min())
    assert label["id"] == "x" and label["valid"].all() and label["valid"].shape == given.shape


@given(arrays.arrays(np.float32, SIZES, elements=FINITE | st.sampled_from(EXTREMES)))
def test_any_finite_map_comes_back_within_a_thousandth_of_its_range(disparity):
    check(disparity)


@given(SIZES, st.integers(0, 2**32 - 1), SCALES, OFFSETS, st.floats(0, 1))
def test_fields_of_every_scale_with_edges_and_sky_keep_the_bound(size, seed, scale, offset, sky):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / 24
    field = 3 * rows + np.sin(5 * columns) + 4 * (rows + columns > 1) + rng.normal(0, 0.01, size)
    field = np.maximum(field - 4 * sky, 0)  # the network ends in a ReLU
    check((field * scale + offset).astype(np.float32))


@pytest.mark.parametrize("steps", [1, 2, 500, 999, 1000, 1001, 7515, 100_000, 249_999, 500_000])
@pytest.mark.parametrize("start", [1.0, 1000.0, -3.0, 1e-40])
def test_ranges_of_few_float32_steps_keep_the_bound(start, steps):
    bits = np.float32(start).view(np.int32) + np.linspace(0, steps, 777).astype(np.int32)
    check(bits.view(np.float32).reshape(21, 37))


@pytest.mark.parametrize("high", [0.0, 1e-30, 2.0])
def test_no_map_grows_beyond_its_range_by_rounding(high):
    for low in -np.geomspace(1, 1e38, 100):
        check(np.array([[low, high]], np.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (17, 1), (2, 2), (9, 8)])
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-45, 3e38])
def test_a_constant_map_comes_back_as_it_was(size, value):
    disparity = np.full(size, value, np.float32)
    label = labels.decode_label(labels.encode_label("x", disparity))
    np.testing.assert_array_equal(label["disparity"], disparity)


def test_maps_of_the_real_network_keep_the_bound_in_few_bytes(extra_data):
    for path in sorted((extra_data / "weights" / "reference").glob("*.npz")):
        disparity = np.load(path)["depth_net"].squeeze()
        check(disparity)
        assert len(labels.encode_label("x", disparity)) < 0.3 * disparity.size


def test_damaged_labels_are_refused_by_name():
    rng = np.random.default_rng(0)
    disparity = np.cumsum(rng.normal(size=(20, 30)), axis=1).astype(np.float32)
    record = labels.encode_label("photo 7", disparity)
    named = 0
    for _ in range(200):
        damaged = bytearray(record)
        for place in rng.integers(0, len(record), rng.integers(1, 4)):
            damaged[place] ^= int(rng.integers(1, 256))
        with pytest.raises(DavError, match="damaged") as error:
            labels.decode_label(bytes(damaged[: rng.choice([len(record), rng.integers(1000)])]))
        named += "'photo 7'" in str(error.value)
    assert named > 50
    for other in (b"", b"\x00", b"\x81", msgpack.packb([1]), msgpack.packb({"id": "photo 7"})):
        with pytest.raises(DavError, match="damaged"):
            labels.decode_label(other)


def test_labels_of_another_codec_are_refused(monkeypatch):
    record = labels.encode_label("photo 7", np.eye(3, dtype=np.float32))
    monkeypatch.setattr(labels, "CODEC", "another 2")
    with pytest.raises(DavError, match="'photo 7'.*near-lossless 1.*another 2"):
        labels.decode_label(record)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(value):
    with pytest.raises(DavError, match="photo 7.*not finite"):
        labels.encode_label("photo 7", np.array([[1, value]], np.float32))


def test_an_image_without_a_label_says_why():
    label = labels.decode_label(labels.encode_missing("photo 7", "it is torn"))
    assert label == {"id": "photo 7", "reason": "it is torn"}


@given(st.integers(0, 2**32 - 1))
def test_what_a_map_is_like(seed):
    rng = np.random.default_rng(seed)
    disparity = np.maximum(rng.normal(size=(24, 36)), 0).astype(np.float32)
    found = labels.describe(disparity)
    assert (found["low"], found["high"]) == (disparity.min(), disparity.max())
    assert found["zeros"] == pytest.approx((disparity == 0).mean(), abs=1e-9)
    assert found["median"] == pytest.approx(np.median(disparity[::4, ::4]))
    smooth = np.linspace(0, 1, 24 * 36, dtype=np.float32).reshape(24, 36)
    assert labels.describe(smooth)["roughness"] < 0.1 * found["roughness"]
    assert labels.describe(np.full((5, 7), 3, np.float32)) == {
        **{"low": 3, "median": 3, "high": 3, "zeros": 0, "roughness": 0}
    }
