"""Synthetic scenes whose right answer is known, and real ones."""

import itertools
import re
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.data import statistics
from dav.data.findings import findings
from dav.data.frames import DEPTH, DEPTH_M, DISPARITY, PAIRS
from dav.data.statistics import block_mean, measure_image, measure_map, measure_pairs, oddness

MIRRORS = {
    "as it is": (slice(None), slice(None)),
    "left-right": (slice(None), slice(None, None, -1)),
    "upside down": (slice(None, None, -1), slice(None)),
    "both ways": (slice(None, None, -1), slice(None, None, -1)),
}


def scene(seed, size=(120, 160)):
    """Boxes on a ground that comes nearer: image uint8 [H, W, 3], depth in metres [H, W]."""
    rng = np.random.default_rng(seed)
    height, width = size
    depth = np.repeat(np.linspace(12, 2, height, dtype=np.float32)[:, None], width, axis=1)
    image = np.full((height, width, 3), 120, np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
        bottom, right = top + rng.integers(12, 50), left + rng.integers(12, 50)
        depth[top:bottom, left:right] = depth[min(bottom, height) - 1, 0] * 0.6
        image[top:bottom, left:right] = rng.integers(0, 256, 3)
    noise = rng.integers(0, 6, image.shape, np.uint8)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8), depth


def measure(seed=0, *, quantity=DEPTH_M, change=lambda depth: depth, measured=None, sky=None):
    image, depth = scene(seed)
    values = change(depth)
    measured = np.ones(depth.shape, bool) if measured is None else measured
    sky = np.zeros(depth.shape, bool) if sky is None else sky
    return measure_map(f"id{seed}", image, quantity, 0.001, values, measured & ~sky, sky)


def many(count=8, **options):
    return [measure(seed, **options) for seed in range(count)]


@pytest.mark.parametrize("mirror", MIRRORS)
def test_the_mirror_that_was_applied_agrees_best(mirror):
    for one in many(6, change=lambda depth: depth[MIRRORS[mirror]]):
        assert statistics.MIRRORS[int(np.argmax(one.edges))] == mirror


def test_a_transposed_or_foreign_target_agrees_with_none():
    foreign = [
        measure_map("", scene(i)[0], DEPTH_M, 0, scene(i + 50)[1], *full()) for i in range(9)
    ]
    assert abs(np.mean([one.edges[0] for one in foreign])) < 0.1 < np.mean(edges(many(9)))


def full(size=(120, 160)):
    return np.ones(size, bool), np.zeros(size, bool)


def edges(examples):
    return [one.edges[0] for one in examples]


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e4), st.integers(0, 99))
def test_a_unit_changes_nothing_but_the_values(factor, seed):
    one, other = measure(seed), measure(seed, change=lambda depth: depth * np.float32(factor))
    np.testing.assert_allclose(other.percentiles, np.array(one.percentiles) * factor, rtol=1e-4)
    np.testing.assert_allclose(other.edges, one.edges, atol=1e-3)
    assert other.rises == one.rises == 1


def test_depth_and_its_inverse_as_disparity_measure_the_same():
    one = measure(3, quantity=DEPTH)
    other = measure(3, quantity=DISPARITY, change=lambda depth: 1 / depth)
    np.testing.assert_allclose(other.edges, one.edges, atol=1e-4)
    np.testing.assert_allclose(other.disparity_counts, one.disparity_counts, atol=0.01)
    assert (one.rises, other.rises) == (1, 1)
    assert measure(3, quantity=DISPARITY).rises == 0  # depth said to be disparity


def test_shares_percentiles_and_histograms():
    measured, sky = np.zeros((120, 160), bool), np.zeros((120, 160), bool)
    measured[60:] = True
    sky[:30] = True
    one = measure(0, measured=measured, sky=sky, change=lambda depth: np.full_like(depth, 2.5))
    assert (one.valid, one.sky, one.sky_above, one.height, one.width) == (0.5, 0.25, 1.0, 120, 160)
    assert one.percentiles == (2.5, 2.5, 2.5)
    at = int(np.argmax(one.depth_counts))
    assert statistics.DEPTH_EDGES_M[at] <= 2.5 < statistics.DEPTH_EDGES_M[at + 1]
    assert one.depth_counts.sum() == pytest.approx(1)
    assert one.disparity_counts[-1] == pytest.approx(1)  # all are at the 98th percentile
    assert one.rises == 1  # sky is farthest


def test_lidar_needs_no_upper_third():
    """Points in the lower part alone, one in thirty."""
    measured = np.zeros((120, 160), bool)
    measured[50:] = np.random.default_rng(1).random((70, 160)) < 0.15
    assert measure(0, measured=measured).rises == 1
    assert measure(0, measured=measured, change=lambda depth: depth.max() + 1 - depth).rises == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3, 3), (700, 2)])
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_nothing_to_measure_is_no_error(size, share):
    rng = np.random.default_rng(0)
    image, measured = rng.integers(0, 256, (*size, 3), np.uint8), rng.random(size) < share
    values = np.where(measured, 1 + rng.random(size), 0).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = measure_map("tiny", image, DEPTH, 0, values, measured, ~measured)
        findings([one] * 9)
        oddness([one] * 9)
    assert one.valid == measured.mean()


def test_what_is_not_measured_is_never_read():
    rng = np.random.default_rng(2)
    measured = rng.random((120, 160)) < 0.7
    one = measure(1, measured=measured)
    spoilt = measure(1, measured=measured, change=lambda d: np.where(measured, d, np.nan))
    assert replace(spoilt, depth_counts=0, disparity_counts=0) == replace(
        one, depth_counts=0, disparity_counts=0
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_block_means_are_means_of_blocks_that_cover_everything(height, width, rows, columns):
    rows, columns = min(rows, height), min(columns, width)
    values = np.random.default_rng(0).random((height, width))
    got = block_mean(values, (rows, columns))
    tops = np.arange(rows + 1) * height // rows
    lefts = np.arange(columns + 1) * width // columns
    expected = [
        [values[a:b, c:d].mean() for c, d in itertools.pairwise(lefts)]
        for a, b in itertools.pairwise(tops)
    ]
    np.testing.assert_allclose(got, expected)


def test_points():
    image = np.zeros((100, 200, 3), np.uint8)
    points = np.array([[[90, 10], [10, 10]], [[20, 199], [50, 0]], [[80, 200], [1, 1]]], np.int32)
    one = measure_pairs("a", image, points)
    assert (one.quantity, one.pairs, one.pairs_outside) == (PAIRS, 3, 1)  # column 200 is outside
    assert one.pairs_below == pytest.approx(2 / 3)
    assert measure_pairs("none", image, points[:0]).pairs == 0


def test_the_odd_one_stands_out_with_its_reason():
    good = many(20)
    odd = replace(measure(5, change=lambda depth: depth * 1000), id="odd")
    scored = oddness([*good[:7], odd, *good[7:]])
    assert int(np.argmax([score for score, *_ in scored])) == 7
    assert "depth" in scored[7][1] and " m (of the set: " in scored[7][2]
    black = measure_image("black", np.zeros((30, 40, 3), np.uint8))
    grey = [measure_image(str(i), np.full((30, 40, 3), 120 + i, np.uint8)) for i in range(9)]
    assert np.argmax([score for score, *_ in oddness([*grey, black])]) == 9
    assert oddness([good[0]] * 3)[0][0] == 0


def test_nothing_is_found_where_all_is_well():
    sky = np.zeros((120, 160), bool)
    sky[:10] = True
    assert findings(many()) == findings(many(sky=sky)) == []
    assert findings(many(quantity=DISPARITY, change=lambda depth: 1 / depth)) == []
    assert findings([]) == []


LOWER = np.arange(120)[:, None] * np.ones(160) > 100


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        (lambda: many(change=lambda depth: depth[:, ::-1]), "flipped.*mirrored left-right"),
        (lambda: many(change=lambda depth: depth[::-1]), "upside down\\? In only 0%"),
        (lambda: many(change=lambda depth: depth[::-1, ::-1]), "flipped.*both ways"),
        (lambda: many(change=lambda depth: depth * 1000), "wrong unit.* [45]\\d{3} m"),
        (lambda: many(change=lambda depth: depth / 1000), "wrong unit.*0.00"),
        (lambda: many(change=lambda depth: 1 / depth), "depth taken for disparity"),
        (lambda: many(change=lambda d: np.where(d > 11, 1e4, d)), "sky that is not marked"),
        (lambda: many(sky=LOWER), "Only 0% of the sky"),
        (lambda: [*many(), *many(1, quantity=DISPARITY)], "several kinds: depth_m, disparity"),
        (lambda: [replace(one, contrast=0) for one in many()], "8 of 8 images are of one colour"),
    ],
)
def test_what_is_wrong_is_said(examples, said):
    assert re.search(said, "\n".join(findings(examples())))


def test_nearly_empty_targets_and_points_outside_are_counted():
    bare = np.zeros((120, 160), bool)
    bare[100, 20:120] = True
    found = findings([*many(), measure(9, measured=bare)])
    assert any("1 of 9 targets have less than a twentieth" in line for line in found)
    image = np.zeros((100, 100, 3), np.uint8)
    image[:50] = 200
    upper = np.array([[[10, 10], [90, 10]], [[5, 5], [70, 100]]], np.int32)
    found = findings([measure_pairs(str(i), image, upper) for i in range(5)])
    assert any("5 points are outside" in line for line in found)
    assert any("In only 0% of the pairs is the closer point the lower one" in f for f in found)


REAL = {  # folder, images, unit of the 16-bit depth
    "icl": (
        "icl_livingroom/{}.jpg",
        "icl_livingroom/{}.png",
        0.001,
        "00000 00040 00080 00120 00148",
    ),
    "kitti": (
        *("kitti_raw/image_02/{}.png", "kitti_raw/proj_depth/image_02/{}.png", 1 / 256),
        "0000000000 0000000006 0000000012 0000000021 0000000033",
    ),
    "kitchen": (
        *("redkitchen_7scenes/{}.color.jpg", "redkitchen_7scenes/{}.depth.png", 0.001),
        "frame-000000 frame-000100 frame-000200 frame-000300 frame-000400",
    ),
}


@pytest.mark.parametrize("source", REAL)
def test_real_scenes_are_told_from_spoilt_ones(extra_data, source):
    image_path, depth_path, unit, names = REAL[source]
    scenes = []
    for name in names.split():
        image = cv2.imread(str(extra_data / "samples" / image_path.format(name)))
        steps = cv2.imread(str(extra_data / "samples" / depth_path.format(name)), -1)
        steps[steps == 65535] = 0
        scenes.append((image, steps.astype(np.float32) * unit))

    def found(change):
        maps = [(image, change(depth)) for image, depth in scenes]
        examples = [
            measure_map("", image, DEPTH_M, unit, depth, depth > 0, np.zeros(depth.shape, bool))
            for image, depth in maps
        ]
        return "\n".join(findings(examples))

    assert found(lambda depth: depth) == ""
    assert "flipped" in found(lambda depth: depth[:, ::-1])
    assert "upside down" in found(lambda depth: depth[::-1])
    assert "wrong unit" in found(lambda depth: depth / unit)
    assert "depth taken for disparity" in found(
        lambda depth: np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    )
