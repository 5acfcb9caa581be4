from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import build, ramp, stored, write_image, write_steps

from dav.data.builders import tum_rgbd
from dav.errors import DavError

(BUILDER,) = tum_rgbd.BUILDERS
IMAGES_S = (100.00, 100.03, 100.06, 100.09)
MAPS_S = (99.985, 100.028, 100.071, 100.30)


def write_sequence(folder, images_s=IMAGES_S, maps_s=MAPS_S):
    for kind, times in (("rgb", images_s), ("depth", maps_s)):
        lines = [f"# {kind} maps", "# timestamp filename"]
        for index, time_s in enumerate(times):
            name = f"{kind}/{time_s:.6f}.png"
            lines.append(f"{time_s:.6f} {name}")
            if kind == "rgb":
                write_image(folder / name, seed=index)
            else:
                write_steps(folder / name, ramp(first=5000 * (index + 1)))
        (folder / f"{kind}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def raw(tmp_path):
    write_sequence(tmp_path / "rgbd_dataset_freiburg1_desk")
    write_sequence(tmp_path / "rgbd_dataset_freiburg1_desk_validation")
    return tmp_path


def test_images_go_with_the_nearest_maps(raw):
    found = build(BUILDER, raw)
    desk = "rgbd_dataset_freiburg1_desk"
    times = ("100.000000", "100.030000", "100.060000")
    assert [frame.id for frame in found["train"]] == [f"{desk}/{time}" for time in times]
    assert {frame.id.split("/")[0] for frame in found["val"]} == {f"{desk}_validation"}
    assert [frame.target.values[0, 1] for frame in found["train"]] == pytest.approx(
        [5010 / 5000, 10010 / 5000, 15010 / 5000]
    )
    frame = found["train"][2]
    assert frame.image == (raw / desk / "rgb/100.060000.png").read_bytes()
    assert stored(frame)["depth_m"][5, 0] == pytest.approx(15400 / 5000)


def test_the_folder_of_one_sequence_will_do(raw):
    found = build(BUILDER, raw / "rgbd_dataset_freiburg1_desk")
    assert found["train"][0].id == "rgbd_dataset_freiburg1_desk/100.000000"


def test_a_validation_sequence_is_known_by_its_name_from_inside_too(raw, monkeypatch):
    monkeypatch.chdir(raw / "rgbd_dataset_freiburg1_desk_validation")
    found = build(BUILDER, Path("."))
    assert list(found) == ["val"]
    assert found["val"][0].id == "rgbd_dataset_freiburg1_desk_validation/100.000000"


def test_the_nearer_image_gets_the_map():
    assert tum_rgbd.associate([1.00, 1.01], [1.012]) == [(1, 0)]
    assert tum_rgbd.associate([1.00, 1.01], [1.005 - 1e-9, 1.014]) == [(0, 0), (1, 1)]
    assert tum_rgbd.associate([1.0], [1.021]) == []
    assert tum_rgbd.associate([], [1.0]) == tum_rgbd.associate([1.0], []) == []


@given(*[st.lists(st.integers(0, 300), max_size=12)] * 2)
def test_pairs_are_near_unique_and_none_is_left_that_could_be_made(images_ms, maps_ms):
    images, maps = sorted(t / 1000 for t in images_ms), sorted(t / 1000 for t in maps_ms)
    pairs = tum_rgbd.associate(images, maps)
    assert pairs == sorted(pairs)
    for side in (0, 1):
        assert len({pair[side] for pair in pairs}) == len(pairs)
    assert all(abs(images[i] - maps[k]) <= 0.02 + 1e-9 for i, k in pairs)
    used = [{pair[side] for pair in pairs} for side in (0, 1)]
    for i in set(range(len(images))) - used[0]:
        for k in set(range(len(maps))) - used[1]:
            assert abs(images[i] - maps[k]) > 0.02 - 1e-9


def test_holes_are_invalid(raw):
    steps = ramp()
    steps[2, 3] = 0
    write_steps(raw / "rgbd_dataset_freiburg1_desk/depth/99.985000.png", steps)
    target = build(BUILDER, raw)["train"][0].target
    assert np.argwhere(~target.valid).tolist() == [[2, 3]]


def test_what_is_missing_or_torn_is_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"rgb\.txt.*rgbd_dataset_"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    desk = raw / "rgbd_dataset_freiburg1_desk"
    (desk / "depth/100.028000.png").unlink()
    with pytest.raises(DavError, match=r"depth/100\.028000\.png.*missing"):
        BUILDER.plan(raw)
    (desk / "depth.txt").write_text("# depth\n100.0 depth/a.png\n100.03 depth")
    with pytest.raises(DavError, match=r"depth/a\.png.*missing"):
        BUILDER.plan(raw)
    (desk / "depth.txt").write_text("# depth\n100.0 depth/a.png\n100.03")
    with pytest.raises(DavError, match=r"depth\.txt, line 3: '100.03'"):
        BUILDER.plan(raw)
    (desk / "depth.txt").write_text("7.0 depth/a.png\n")
    with pytest.raises(DavError, match=r"no image of .*rgb\.txt is within 0\.02 s"):
        BUILDER.plan(raw)
    (desk / "depth.txt").unlink()
    with pytest.raises(DavError, match=r"depth\.txt is missing"):
        BUILDER.plan(raw)


def test_a_real_desk(extra_data, tmp_path):
    """Nine images and nine maps, of which eight lie near enough; a desk is a metre away."""
    source, folder = extra_data / "samples/tum_fr1_desk", tmp_path / "rgbd_dataset_freiburg1_desk"
    folder.mkdir()
    for kind in ("rgb", "depth"):
        (folder / kind).symlink_to(source / kind)
        names = sorted(path.name for path in (source / kind).iterdir())
        lines = [f"{name.removesuffix('.png')} {kind}/{name}" for name in names]
        (folder / f"{kind}.txt").write_text("\n".join(lines))
    frames = build(BUILDER, tmp_path)["train"]
    assert 7 <= len(frames) <= 9
    for frame in frames:
        assert 0.6 < np.median(frame.target.values[frame.target.valid]) < 2
        assert 0.5 < frame.target.valid.mean() < 1
    example = stored(frames[0])
    assert example["image"].shape == (480, 640, 3)
    np.testing.assert_array_equal(example["valid"], frames[0].target.valid)
