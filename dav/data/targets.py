"""Targets as they are stored: 16-bit PNG whose codes stand for values.

    0           not measured
    65535       sky: at infinity, disparity 0
    1 … 65534   unit · code where growth is 0, else unit · exp(growth · code)

Sources in whole steps keep them exactly. Others are stored on a logarithmic scale from each map's
smallest to its largest value: the relative error is at most half of growth, 1e-4 for values that
span six decades.
"""

import cv2
import numpy as np

from dav.data.frames import DEPTH, DEPTH_M
from dav.errors import DavError

SKY = 65535
LARGEST = 65534
LEAST_GROWTH = 1e-6  # finer steps than float32 has would not be exact


def encode_target(target, name):
    """Target → (PNG bytes, unit, growth).

    Raises DavError, with `name`, for a map without a measured pixel and for values that the Target
    contract excludes.
    """
    sky = np.zeros(target.valid.shape, bool) if target.sky is None else target.sky
    values = np.asarray(target.values)
    _check_shapes(target, name, values, sky)
    measured = target.valid & ~sky
    _check_values(name, values[measured])
    codes = np.zeros(values.shape, np.uint16)
    inside = values[measured].astype(np.float64)
    unit, growth = scale_of(inside, target.unit)
    steps = np.log(inside / unit) / growth if growth else inside / unit
    codes[measured] = _whole(steps, name)
    codes[sky] = SKY
    png = cv2.imencode(".png", codes, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1]
    return png.tobytes(), unit, growth


def scale_of(values, unit):
    """(unit, growth), both exact in float32, for positive values; growth is 0 with a given unit."""
    if unit is not None or not values.size:
        return float(np.float32(unit or 1)), 0.0
    low, high = values.min(), values.max()
    growth = float(np.float32(max(np.log(high / low) / (LARGEST - 2), LEAST_GROWTH)))
    return float(np.float32(low * np.exp(-growth))), growth


def _check_shapes(target, name, values, sky):
    if values.shape != target.valid.shape or sky.shape != values.shape or values.ndim != 2:
        raise DavError(
            f"{name}: target {values.shape}, mask {target.valid.shape} and sky {sky.shape} differ"
        )


def _check_values(name, measured):
    if not measured.size:
        raise DavError(f"{name}: its target has no valid pixel")
    if not np.isfinite(measured).all() or measured.min() <= 0:
        raise DavError(f"{name}: its target has values marked valid that are not finite and > 0")


def _whole(steps, name):
    codes = np.round(steps)
    if codes.size and (codes.min() < 1 or codes.max() > LARGEST):
        raise DavError(f"{name}: its target has values outside 1 … {LARGEST} steps of its unit")
    return codes.astype(np.uint16)


def decode_depth(png, unit, growth, name):
    """The inverse, as it was stored: values float32 [H, W], 0 where not measured and in the sky;
    measured bool [H, W], without the sky."""
    codes = _decode(png, name)
    return _values(unit, growth)[codes], (codes > 0) & (codes < SKY)


def decode_disparity(png, unit, growth, quantity, name):
    """Training's target: disparity float32 [H, W], 0 where invalid and in the sky; valid bool
    [H, W], with the sky (arXiv 2401.10891, §3.1)."""
    codes = _decode(png, name)
    table = _values(unit, growth)
    if quantity in (DEPTH_M, DEPTH):
        table = np.divide(1, table, out=np.zeros_like(table), where=table > 0)
    return table[codes], codes > 0


def _values(unit, growth):
    """The value of every code, float32 [65536]: reading a table is faster than computing maps."""
    steps = np.arange(65536, dtype=np.float32)
    table = np.exp(steps * np.float32(growth)) * np.float32(unit) if growth else steps * unit
    table[[0, SKY]] = 0
    return table.astype(np.float32)


def _decode(png, name):
    codes = None
    if png:
        try:
            codes = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            codes = None
    if codes is None:
        raise DavError(
            f"example {name}: its target cannot be decoded: its data set is damaged; prepare it "
            "again (--job=prepare)"
        )
    if codes.dtype != np.uint16 or codes.ndim != 2:
        raise DavError(f"example {name}: its target is not a 16-bit grey PNG; prepare it again")
    return codes
