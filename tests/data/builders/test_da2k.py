import json

import numpy as np
import pytest
from PIL import Image
from raw_files import stored_disparity, write_image

from dav.data.builders import da2k
from dav.data.frames import Pairs
from dav.errors import DavError

(BUILDER,) = da2k.BUILDERS
PAIRS = {
    "images/outdoor/b.jpg": [{"point1": [5, 0], "point2": [0, 7], "closer_point": "point1"}],
    "images/indoor/a.png": [
        {"point1": [0, 7], "point2": [5, 6], "closer_point": "point1"},
        {"point1": [3, 2], "point2": [1, 4], "closer_point": "point2"},
    ],
}


@pytest.fixture
def raw(tmp_path):
    for name in PAIRS:
        write_image(tmp_path / name)
    annotate(tmp_path, PAIRS)
    return tmp_path


def test_the_folder_that_the_archive_unpacks_into_changes_nothing(raw, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "DA-2K").symlink_to(raw)
    assert BUILDER.plan(outer) == BUILDER.plan(raw)
    assert [frame.id for frame in build_pairs(outer)] == [frame.id for frame in build_pairs(raw)]


def annotate(raw, pairs):
    (raw / "annotations.json").write_text(json.dumps(pairs))


def test_the_closer_point_first_as_row_and_column(raw):
    indoor, outdoor = build_pairs(raw)
    assert (indoor.id, outdoor.id) == ("images/indoor/a", "images/outdoor/b")
    assert indoor.target.points.tolist() == [[[0, 7], [5, 6]], [[1, 4], [3, 2]]]
    assert outdoor.target.points.tolist() == [[[5, 0], [0, 7]]]
    example = stored_disparity(indoor)
    assert example["pairs"].dtype == np.int32 and example["pairs"].shape == (2, 2, 2)
    # on a ramp of disparity that grows with the row, exchanged axes would change the answer
    ramp = np.arange(6)[:, None] + np.zeros(8)
    (closer, farther), _ = example["pairs"]
    assert ramp[tuple(closer)] < ramp[tuple(farther)]


def build_pairs(raw):
    splits = BUILDER.plan(raw)
    assert list(splits) == ["test"] and splits == BUILDER.plan(raw)
    frames = [frame for item in splits["test"] for frame in BUILDER.read(raw, item)]
    assert all(isinstance(frame.target, Pairs) for frame in frames)
    return frames


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"point1": [6, 0]}, "8×6, and annotations.json has points outside"),
        ({"point2": [0, 8]}, "8×6, and annotations.json has points outside"),
        ({"point1": [-1, 0]}, "must be \\[row, column\\]"),
        ({"point1": [1.5, 0]}, "must be \\[row, column\\]"),
        ({"point1": [1 << 40, 0]}, "must be \\[row, column\\]"),
        ({"point1": [1, 2, 3]}, "cannot read .*annotations.json"),
        ({"point1": [float("nan"), 2]}, "cannot read .*annotations.json"),
        ({"closer_point": "point3"}, "must be point1 or point2"),
        ({"closer_point": None}, "must be point1 or point2"),
    ],
)
def test_annotations_that_make_no_sense_are_errors(raw, change, told):
    annotate(raw, {"images/indoor/a.png": [PAIRS["images/indoor/a.png"][0] | change]})
    with pytest.raises(DavError, match=told):
        build_pairs(raw)


def test_points_are_of_the_image_seen_upright(raw):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = raw / "images/outdoor/b.jpg"
    Image.open(path).save(path, exif=exif)  # 8×6 as stored, 6×8 upright
    with pytest.raises(DavError, match="is 6×8, and annotations.json has points outside"):
        build_pairs(raw)
    pair = {"point1": [7, 0], "point2": [0, 5], "closer_point": "point1"}
    annotate(raw, {"images/outdoor/b.jpg": [pair]})
    (frame,) = build_pairs(raw)
    assert frame.target.points.tolist() == [[[7, 0], [0, 5]]]


def test_what_is_missing_is_named(raw):
    (raw / "images/outdoor/b.jpg").unlink()
    with pytest.raises(DavError, match="images/outdoor/b.jpg, which belongs to .*annotations.json"):
        BUILDER.plan(raw)
    (raw / "annotations.json").write_text('{"images')
    with pytest.raises(DavError, match="cannot read .*annotations.json"):
        BUILDER.plan(raw)
    (raw / "annotations.json").unlink()
    with pytest.raises(DavError, match="annotations.json is missing: unpack DA-2K.zip"):
        BUILDER.plan(raw)


def test_fuzzed_annotations_give_a_plan_or_a_daverror(raw):
    path, random = raw / "annotations.json", np.random.default_rng(0)
    content = path.read_bytes()
    for _ in range(200):
        mutated = bytearray(content[: random.integers(1, len(content) + 1)])
        for place in random.integers(0, len(mutated), random.integers(0, 4)):
            mutated[place] = random.integers(0, 256)
        path.write_bytes(mutated)
        try:
            build_pairs(raw)
        except DavError as error:
            assert str(raw) in str(error)
