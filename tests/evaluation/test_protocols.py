"""Crops to the pixel, and the published counts."""

import pytest

from dav.data import catalog
from dav.evaluation.protocols import CROPS, PROTOCOLS, crop_box, protocol_of

GARG = {
    (352, 1216): (143, 349, 43, 1172),
    (375, 1242): (153, 371, 44, 1197),
    (370, 1226): (151, 366, 44, 1181),
    (376, 1241): (153, 372, 44, 1196),
}
EIGEN = {
    (352, 1216): (117, 321, 43, 1172),
    (375, 1242): (124, 342, 44, 1197),
    (370, 1226): (122, 337, 44, 1181),
    (376, 1241): (124, 343, 44, 1196),
}


@pytest.mark.parametrize("size", GARG)
def test_crops_of_kitti_frames(size):
    assert crop_box("garg", *size) == GARG[size]
    assert crop_box("eigen", *size) == EIGEN[size]


def test_nyu_crop_is_of_fixed_pixels():
    assert crop_box("nyu", 480, 640) == (45, 471, 41, 601)
    assert crop_box("nyu", 768, 1024) == (45, 471, 41, 601)
    assert crop_box("nyu", 427, 561) == (45, 427, 41, 561)


def test_kb_is_the_lower_middle_and_garg_within_it_is_another_than_of_the_whole():
    assert crop_box("kb", 375, 1242) == (23, 375, 13, 1229)
    assert crop_box("kb_garg", 375, 1242) == (23 + 143, 23 + 349, 13 + 43, 13 + 1172)
    assert crop_box("kb", 352, 1216) == (0, 352, 0, 1216)
    assert crop_box("kb", 200, 600) == (0, 200, 0, 600)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", [(1, 1), (30, 20), (4032, 6048)])
def test_no_crop_leaves_the_image(crop, size):
    top, bottom, left, right = crop_box(crop, *size)
    assert 0 <= top <= bottom <= size[0] and 0 <= left <= right <= size[1]


def test_none_is_everything():
    assert crop_box("none", 7, 9) == (0, 7, 0, 9)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_counts_are_those_that_the_builders_know(name):
    published = protocol_of(name)
    counts = catalog.builder_of(name).counts
    if published.images:
        assert counts[published.split] == published.images
    else:
        assert published.split not in counts or name in ("tum_rgbd", "seven_scenes")


def test_benchmarks_as_published():
    expected = {"kitti": 652, "nyuv2": 654, "sintel": 1064, "ddad": 3950, "eth3d": 454}
    expected |= {"diode/indoor": 325, "diode/outdoor": 446}
    assert {name: protocol_of(name).images for name in expected} == expected
    ranges = {
        name: (protocol_of(name).min_depth_m, protocol_of(name).max_depth_m) for name in expected
    }
    assert ranges["kitti"] == (1e-3, 80) and ranges["nyuv2"] == (1e-3, 10)
    assert protocol_of("kitti").crop == "garg" and protocol_of("nyuv2").crop == "nyu"


def test_a_set_without_protocol_says_so():
    assert "no published protocol" in protocol_of("folder/garage").source


def test_editions_of_nyu_are_told_apart():
    truths = {protocol_of(name).truth for name in ("nyuv2", "nyuv2/filled", "nyuv2/bts")}
    assert len(truths) == 3
