import cv2
import numpy as np
import pytest
from raw_files import build, ramp, stored, write_image, write_steps

from dav.data.builders import ibims1
from dav.errors import DavError

(BUILDER,) = ibims1.BUILDERS
NAMES = ("office_02", "corridor_01")  # not in alphabetical order


@pytest.fixture
def raw(tmp_path):
    core = tmp_path / "ibims1_core_raw"
    (tmp_path / "imagelist.txt").write_text("\n".join(NAMES) + "\n")
    for seed, name in enumerate(NAMES):
        write_image(core / "rgb" / f"{name}.png", seed=seed)
        write_steps(core / "depth" / f"{name}.png", ramp(first=2000 + seed, step=100))
        for kind in ("mask_invalid", "mask_transp"):
            write_mask(core / kind / f"{name}.png")
    return tmp_path


def write_mask(path, *holes):
    """One bit a pixel, as published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.full((6, 8), 255, np.uint8)
    for hole in holes:
        mask[hole] = 0
    assert cv2.imwrite(str(path), mask, [cv2.IMWRITE_PNG_BILEVEL, 1])


def test_values_are_fifty_metres_in_65535_steps(raw):
    found = build(BUILDER, raw)
    assert [frame.id for frame in found["test"]] == list(NAMES)
    frame = found["test"][0]
    assert frame.target.values[0, 1] == pytest.approx(2100 * 50 / 65535, rel=1e-6)
    assert frame.image == (raw / "ibims1_core_raw/rgb/office_02.png").read_bytes()
    example = stored(frame)
    assert example["depth_m"][5, 0] == pytest.approx(6000 * 50 / 65535, rel=1e-6)
    assert example["valid"].all()


def test_a_pixel_counts_where_both_masks_are_set(raw):
    core = raw / "ibims1_core_raw"
    write_mask(core / "mask_invalid/office_02.png", (1, 2))
    write_mask(core / "mask_transp/office_02.png", (3, 4))
    steps = ramp(first=2000, step=100)
    steps[5, 6], steps[5, 7] = 0, 65535
    write_steps(core / "depth/office_02.png", steps)
    valid = build(BUILDER, raw)["test"][0].target.valid
    assert sorted(map(tuple, np.argwhere(~valid))) == [(1, 2), (3, 4), (5, 6), (5, 7)]


def test_the_list_may_stand_with_the_images(raw):
    (raw / "imagelist.txt").rename(raw / "ibims1_core_raw/imagelist.txt")
    assert len(build(BUILDER, raw)["test"]) == 2


@pytest.mark.parametrize("kind", ["rgb", "depth", "mask_invalid", "mask_transp"])
def test_what_is_missing_is_named(raw, kind):
    (raw / f"ibims1_core_raw/{kind}/corridor_01.png").unlink()
    with pytest.raises(DavError, match=rf"{kind}/corridor_01\.png.*missing"):
        BUILDER.plan(raw)


def test_a_wrong_folder_is_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"ibims1_core_raw is missing.*ibims1_core_raw\.zip"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    (raw / "imagelist.txt").unlink()
    with pytest.raises(DavError, match=r"imagelist\.txt is missing"):
        BUILDER.plan(raw)


def test_a_mask_of_another_size_is_refused(raw):
    write_steps(raw / "ibims1_core_raw/mask_transp/office_02.png", np.ones((8, 6), np.uint8))
    with pytest.raises(DavError, match=r"mask_transp/office_02\.png.*differ"):
        build(BUILDER, raw)
