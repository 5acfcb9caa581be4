import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dav.data.frames import DEPTH, DEPTH_M, DISPARITY, Target
from dav.data.targets import decode_depth, decode_disparity, encode_target
from dav.errors import DavError


def round_trip(target):
    png, unit, growth = encode_target(target, "a")
    scale = float(np.float32(unit)), float(np.float32(growth))  # as a record keeps them
    return (*decode_depth(png, *scale, "a"), scale[1], png, scale)


@settings(max_examples=150, deadline=None)
@given(
    low=st.floats(1e-6, 1e6),
    decades=st.one_of(st.floats(0, 1e-5), st.floats(0, 12)),
    seed=st.integers(0, 99),
)
@example(low=2.0, decades=0.0, seed=0)
@example(low=1e-6, decades=12.0, seed=1)
def test_floats_come_back_to_half_a_step(low, decades, seed):
    rng = np.random.default_rng(seed)
    values = (low * 10 ** (decades * rng.random((7, 9)))).astype(np.float32)
    valid = rng.random((7, 9)) < 0.8
    valid[0, 0] = True
    values[~valid] = rng.choice([np.nan, np.inf, -1, 0, 1e30], (~valid).sum())
    decoded, measured, growth, *_ = round_trip(Target(DEPTH, values, valid))
    np.testing.assert_array_equal(measured, valid)
    assert not decoded[~valid].any()
    np.testing.assert_allclose(decoded[valid], values[valid], rtol=growth / 2 + 2e-6)
    assert growth <= max(decades * np.log(10) / 65000, 1.1e-6)


@settings(max_examples=50, deadline=None)
@given(unit=st.sampled_from([1 / 256, 1e-3, 1 / 5000, 50 / 65535, 1.0]), seed=st.integers(0, 99))
def test_whole_steps_come_back_exactly(unit, seed):
    steps = np.random.default_rng(seed).integers(0, 65535, (5, 8))
    values = steps.astype(np.float32) * np.float32(unit)
    target = Target(DEPTH_M, values, steps > 0, unit=unit)
    decoded, measured, growth, png, _ = round_trip(target)
    np.testing.assert_array_equal(decoded, values)
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, steps)
    assert growth == 0 and (measured == (steps > 0)).all()


def test_depth_is_inverted_and_disparity_is_not():
    values = np.array([[2, 4], [8, 0]], np.float32)
    for quantity, expected in ((DEPTH_M, [0.5, 0.25, 0.125]), (DISPARITY, [2, 4, 8])):
        png, unit, growth = encode_target(Target(quantity, values, values > 0, unit=1.0), "a")
        disparity, valid = decode_disparity(png, unit, growth, quantity, "a")
        np.testing.assert_allclose(disparity.ravel()[:3], expected)
        assert disparity.dtype == np.float32 and valid.ravel().tolist() == [True] * 3 + [False]


def test_sky_is_disparity_zero_and_never_depth():
    values = np.array([[2, np.inf], [8, np.nan]], np.float32)
    sky = np.array([[False, True], [True, False]])
    png, unit, growth = encode_target(Target(DEPTH_M, values, np.isfinite(values), sky), "a")
    disparity, valid = decode_disparity(png, unit, growth, DEPTH_M, "a")
    np.testing.assert_allclose(disparity, [[0.5, 0], [0, 0]], rtol=1e-5)
    assert valid.tolist() == [[True, True], [True, False]]
    depth_m, measured = decode_depth(png, unit, growth, "a")
    assert measured.tolist() == [[True, False], [False, False]] and not depth_m[~measured].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros((2, 2), np.float32)}, "not finite and > 0"),
        ({"values": np.full((2, 2), np.nan, np.float32)}, "not finite and > 0"),
        ({"valid": np.zeros((2, 2), bool)}, "no valid pixel"),
        ({"valid": np.ones((2, 3), bool)}, "differ"),
        ({"sky": np.ones((1, 2), bool)}, "differ"),
        ({"values": np.full((2, 2), 70000, np.float32), "unit": 1.0}, "outside 1"),
        ({"values": np.full((2, 2), 0.2, np.float32), "unit": 1.0}, "outside 1"),
    ],
)
def test_what_the_contract_excludes_is_an_error(change, message):
    fields = {"values": np.ones((2, 2), np.float32), "valid": np.ones((2, 2), bool)} | change
    with pytest.raises(DavError, match=f"a/b: .*{message}"):
        encode_target(Target(DEPTH_M, **fields), "a/b")
