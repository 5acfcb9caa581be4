import numpy as np
import pytest
from raw_files import ramp, stored, stored_disparity, write_image, write_steps

from dav.data.builders import virtual_kitti2
from dav.errors import DavError

(BUILDER,) = virtual_kitti2.BUILDERS
FRAMES = {"Scene01": 3, "Scene02": 1 + 1, "Scene06": 2, "Scene18": 2, "Scene20": 25}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every scene and variant, with a frame's number and variant in its depth."""
    raw = tmp_path_factory.mktemp("vkitti")
    image, files = write_image(raw / "image.jpg"), {}
    for scene, count in FRAMES.items():
        for variant in virtual_kitti2.VARIANTS:
            for number in range(count):
                rgb, depth = virtual_kitti2._paths(raw, scene, variant, number)
                for path in (rgb, depth):
                    path.parent.mkdir(parents=True, exist_ok=True)
                rgb.write_bytes(image)
                if number not in files:
                    files[number] = write_steps(raw / "map.png", depth_steps(number)).read_bytes()
                depth.write_bytes(files[number])
    return raw


def depth_steps(number):
    steps = ramp(first=500 + number)
    steps[0, :3] = 65535, 65534, 0
    return steps


def test_centimetres_and_sky(whole):
    item = ("Scene20", "fog", 7)
    (frame,) = BUILDER.read(whole, item)
    assert frame.id == "Scene20/fog/00007"
    assert frame.target.sky.sum() == 1 and frame.target.sky[0, 0]
    assert frame.target.valid[0, :4].tolist() == [False, True, False, True]
    example = stored(frame)
    assert example["depth_m"][0, 1] == pytest.approx(655.34)
    assert example["depth_m"][5, 7] == pytest.approx(9.77) and not example["valid"][0, 0]
    disparity = stored_disparity(frame)
    assert disparity["disparity"][0, 0] == 0 and disparity["valid"][0, 0]
    assert not disparity["valid"][0, 2]
    assert disparity["disparity"][5, 7] == pytest.approx(1 / 9.77)


def test_archives_in_folders_of_their_own_give_the_same(whole, tmp_path):
    for kind in ("rgb", "depth"):
        for scene in FRAMES:
            for variant in virtual_kitti2.VARIANTS:
                inside = f"{scene}/{variant}/frames/{kind}"
                link = tmp_path / f"vkitti_2.0.3_{kind}" / inside
                link.parent.mkdir(parents=True)
                link.symlink_to(whole / inside)
    splits = BUILDER.plan(tmp_path)
    assert splits == BUILDER.plan(whole)
    (one,), (other,) = (list(BUILDER.read(raw, splits["test"][-1])) for raw in (tmp_path, whole))
    assert one.id == other.id and one.image == other.image


def test_the_last_frames_of_each_street_are_held_out_in_all_variants(whole):
    splits = BUILDER.plan(whole)
    held_out = {(scene, number) for scene, _, number in splits["test"]}
    assert held_out == {
        *(("Scene01", 2), ("Scene02", 1), ("Scene06", 1), ("Scene18", 1)),
        *(("Scene20", 23), ("Scene20", 24)),
    }
    assert len(splits["test"]) == 10 * len(held_out)
    assert not {(scene, number) for scene, _, number in splits["train"]} & held_out
    assert len(splits["train"]) + len(splits["test"]) == 10 * sum(FRAMES.values())


def test_counts_are_those_of_the_published_frames():
    """447, 233, 270, 339 and 837 frames in ten variants."""
    frames = (447, 233, 270, 339, 837)
    held_out = [
        sum(n >= virtual_kitti2._first_held_out(range(count)) for n in range(count))
        for count in frames
    ]
    assert BUILDER.counts == {
        "train": 10 * (sum(frames) - sum(held_out)),
        "test": 10 * sum(held_out),
    }
    assert sum(BUILDER.counts.values()) == 21260


def test_ids_are_unique(whole):
    splits = BUILDER.plan(whole)
    items = splits["train"][::29] + splits["test"][::7]
    ids = [entry.id for item in items for entry in BUILDER.read(whole, item)]
    assert len(set(ids)) == len(items)


def test_what_is_missing_is_named(whole, tmp_path):
    with pytest.raises(DavError, match=r"Scene01/15-deg-left.*vkitti_2\.0\.3_rgb\.tar"):
        BUILDER.plan(tmp_path)
    depth = virtual_kitti2._paths(whole, "Scene06", "rain", 1)[1]
    content = depth.read_bytes()
    depth.unlink()
    try:
        with pytest.raises(DavError, match=r"rain.*depth_00001\.png.*missing"):
            BUILDER.plan(whole)
    finally:
        depth.write_bytes(content)


def test_a_map_read_as_eight_bits_never_passes(whole, tmp_path):
    image, depth = virtual_kitti2._paths(tmp_path, "Scene01", "clone", 0)
    write_image(image)
    write_steps(depth, ramp(first=1, step=5, dtype=np.uint8))
    with pytest.raises(DavError, match=r"depth_00000\.png has 8 bits, not the 16 of depth"):
        list(BUILDER.read(tmp_path, ("Scene01", "clone", 0)))
