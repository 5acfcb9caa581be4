import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dav.data import near_lossless

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def there_and_back(values, largest, tolerance):
    parts = near_lossless.compress(values, largest, tolerance)
    return near_lossless.decompress(parts, values.shape, largest, tolerance)


@given(SIZES, st.integers(0, 2**32 - 1), st.integers(1, near_lossless.LARGEST), st.integers(0, 30))
def test_no_pixel_of_any_map_is_off_by_more_than_the_tolerance(size, seed, largest, tolerance):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, largest + 1, size)
    values = np.where(rng.random(size) < rng.random(), noise, noise[0, 0])
    values = np.where(rng.random(size) < rng.random() / 4, 0, values)
    found = there_and_back(values, largest, tolerance)
    assert found.dtype == np.int16 and found.shape == values.shape
    assert found.min() >= 0 and found.max() <= largest
    assert np.abs(found.astype(int) - values).max() <= tolerance
    assert not found[values == 0].any()


@pytest.mark.parametrize("tolerance", [0, 7])
def test_edges_of_full_height_and_single_pixels_stay_within_the_tolerance(tolerance):
    values = np.zeros((61, 83), int)
    values[:, 41:] = near_lossless.LARGEST  # residuals far wider than a byte
    values[30, 20] = values[7, 7] = 5000
    values[33, 60] = 1
    found = there_and_back(values, near_lossless.LARGEST, tolerance)
    assert np.abs(found.astype(int) - values).max() <= tolerance


def test_the_widest_residuals_of_the_coarse_grid_come_back():
    values = near_lossless.LARGEST * (np.indices((33, 33)).sum(axis=0) // 8 % 2)
    np.testing.assert_array_equal(there_and_back(values, near_lossless.LARGEST, 0), values)


def test_without_tolerance_a_map_comes_back_as_it_was():
    rows, columns = np.mgrid[:37, :50]
    values = (rows * columns) % 1000
    np.testing.assert_array_equal(there_and_back(values, 1000, 0), values)


def test_a_plane_costs_next_to_nothing():
    rows, columns = np.mgrid[:518, :686]
    parts = near_lossless.compress(6 * rows + 5 * columns, 7515, 7)
    assert sum(map(len, parts)) < 1000
