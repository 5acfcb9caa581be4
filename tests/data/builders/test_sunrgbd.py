import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import build, ramp, stored, write_image, write_steps

from dav.data.builders import sunrgbd
from dav.data.frames import Skipped
from dav.errors import DavError

scipy_io = pytest.importorskip("scipy.io")
(BUILDER,) = sunrgbd.BUILDERS
ROOT = "/n/fs/sun3d/data/SUNRGBD/"
TRAIN = ("kv1/b3dodata/img_0063", "realsense/lg/2014-10-21_00-00")
TEST = ("kv2/align_kv2/2014-12-16_14-01", "xtion/sun3ddata/a/b/0001")


def rotated(millimetres):
    """As the authors store it: the highest three bits become the lowest."""
    millimetres = np.asarray(millimetres, np.uint16)
    return (millimetres << 3) | (millimetres >> 13)


def write_lists(raw, train, test):
    path = raw / sunrgbd.LISTS
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = {
        name: np.array([*paths, None], object)[None, :-1]
        for name, paths in (("alltrain", train), ("alltest", test))
    }
    scipy_io.savemat(path, cells)


@pytest.fixture
def raw(tmp_path):
    for seed, scene in enumerate(TRAIN + TEST):
        folder = tmp_path / "SUNRGBD" / scene
        write_image(folder / "image" / "0000_x.jpg", seed=seed)
        write_steps(folder / "depth_bfx" / "y.png", rotated(ramp(first=1000 * (seed + 1))))
        write_steps(folder / "depth" / "y.png", rotated(ramp(first=1)))  # with holes: not read
    # Some of the authors' paths have doubled or trailing slashes.
    train = (ROOT + TRAIN[0], "/n/fs/sun3d/data/SUNRGBD//realsense/lg//2014-10-21_00-00/")
    write_lists(tmp_path, train, [ROOT + scene for scene in TEST])
    return tmp_path


def test_splits_follow_the_lists_and_values_are_metres(raw):
    found = build(BUILDER, raw)
    assert [frame.id for frame in found["train"]] == list(TRAIN)
    assert [frame.id for frame in found["test"]] == list(TEST)
    frame = found["train"][1]
    assert frame.image == (raw / "SUNRGBD" / TRAIN[1] / "image/0000_x.jpg").read_bytes()
    assert frame.target.values[0, 3] == pytest.approx(2.03)
    example = stored(frame)
    assert example["depth_m"][5, 0] == pytest.approx(2.4) and example["valid"].all()


@given(st.integers(0, 65535))
def test_rotation_is_undone_for_every_value(millimetres):
    assert sunrgbd.unrotate(rotated(millimetres)) == millimetres


def test_holes_and_what_lies_beyond_eight_metres_are_invalid(raw):
    millimetres = ramp()
    millimetres[0, :4] = 0, 8000, 8001, 65535
    write_steps(raw / "SUNRGBD" / TEST[0] / "depth_bfx/y.png", rotated(millimetres))
    target = build(BUILDER, raw)["test"][0].target
    assert target.valid[0].tolist() == [False, True, False, False, True, True, True, True]
    assert target.values[0, 1] == 8.0


def test_a_map_of_holes_is_skipped(raw):
    write_steps(raw / "SUNRGBD" / TEST[0] / "depth_bfx/y.png", np.zeros((6, 8), np.uint16))
    assert isinstance(build(BUILDER, raw)["test"][0], Skipped)


def test_what_is_missing_is_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"allsplit\.mat is missing.*SUNRGBDtoolbox\.zip"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    (raw / "SUNRGBD" / TEST[1] / "depth_bfx/y.png").unlink()
    with pytest.raises(DavError, match=r"sun3ddata/a/b/0001/depth_bfx/\*\.png"):
        BUILDER.plan(raw)
    shutil.rmtree(raw / "SUNRGBD" / TEST[1])
    with pytest.raises(DavError, match=r"0001 is missing"):
        BUILDER.plan(raw)


def test_lists_of_something_else_are_refused(raw):
    write_lists(raw, ["/home/me/pictures"], [ROOT + TEST[0]])
    with pytest.raises(DavError, match="/home/me/pictures"):
        BUILDER.plan(raw)


def test_another_size_is_refused_with_both_files(raw):
    write_image(raw / "SUNRGBD" / TRAIN[0] / "image/0000_x.jpg", size=(6, 9))
    with pytest.raises(DavError, match=r"y\.png is 8×6, its image .*0000_x\.jpg is 9×6"):
        build(BUILDER, raw)


@pytest.mark.parametrize("sample", ["sunrgbd/img_0063", "other_formats"])
def test_real_scenes_have_the_depth_of_rooms(extra_data, tmp_path, sample):
    """An office and a room: a few metres, and below 8.192 m an eighth of what is stored."""
    source = extra_data / "samples" / sample
    folder = tmp_path / "SUNRGBD" / TRAIN[0]
    image = source / "image/img_0063.jpg" if "img" in sample else source / "SUN_color.jpg"
    depth = source / "depth_bfx/img_0063_abs.png" if "img" in sample else source / "SUN_depth.png"
    for path, name in ((image, "image/a.jpg"), (depth, "depth_bfx/a.png")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(path.read_bytes())
    write_lists(tmp_path, [ROOT + TRAIN[0]], [])
    (frame,) = build(BUILDER, tmp_path)["train"]
    low, middle, high = np.percentile(frame.target.values[frame.target.valid], [1, 50, 99])
    assert 0.4 < low < middle < high <= 8 and 0.8 < middle < 4
    assert frame.target.valid.mean() > 0.7
    steps = sunrgbd.read_depth_steps(depth)
    valid = frame.target.valid
    np.testing.assert_allclose(frame.target.values[valid], steps[valid] / 8000, rtol=1e-6)
    assert stored(frame)["depth_m"][valid].tolist() == frame.target.values[valid].tolist()
