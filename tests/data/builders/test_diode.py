import numpy as np
import pytest
from raw_files import build, stored, write_image

from dav.data.builders import diode
from dav.data.frames import Skipped
from dav.errors import DavError

INDOOR, OUTDOOR = diode.BUILDERS


def write_scan(raw, place, scene, name, *, first=1.0, mask_dtype=np.float64):
    folder = raw / "val" / place / f"scene_{scene}" / f"scan_{name[6:11]}"
    write_image(folder / f"{name}.png")
    values = (first + np.arange(48, dtype=np.float32) / 16).reshape(6, 8, 1)
    values[1, 2] = 0
    mask = np.ones((6, 8), mask_dtype)
    mask[0, 3] = 0
    np.save(folder / f"{name}_depth.npy", values)
    np.save(folder / f"{name}_depth_mask.npy", mask)
    return folder / name


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setattr(diode, "PLACES", {"indoor": ("indoors", 2), "outdoor": ("outdoor", 1)})
    write_scan(tmp_path, "indoors", "00019", "00019_00183_indoors_000_010")
    write_scan(tmp_path, "indoors", "00020", "00020_00184_indoors_350_040", mask_dtype=np.uint8)
    write_scan(tmp_path, "outdoor", "00022", "00022_00194_outdoor_110_030", first=340)
    return tmp_path


def test_published_counts():
    assert [builder.counts["test"] for builder in diode.BUILDERS] == [325, 446]
    assert [builder.name for builder in diode.BUILDERS] == ["diode/indoor", "diode/outdoor"]


def test_indoors_is_plural_and_outdoor_is_not(raw):
    indoor, outdoor = build(INDOOR, raw)["test"], build(OUTDOOR, raw)["test"]
    assert [frame.id for frame in indoor] == [
        "scene_00019/scan_00183/00019_00183_indoors_000_010",
        "scene_00020/scan_00184/00020_00184_indoors_350_040",
    ]
    assert [frame.id for frame in outdoor] == ["scene_00022/scan_00194/00022_00194_outdoor_110_030"]


def test_metres_without_the_last_axis_valid_by_the_mask(raw):
    for frame in build(INDOOR, raw)["test"]:
        example = stored(frame)
        assert example["depth_m"].shape == (6, 8)
        assert example["depth_m"][0, 1] == pytest.approx(1 + 1 / 16, rel=1e-4)
        assert example["depth_m"][5, 0] == pytest.approx(3.5, rel=1e-4)
        assert np.argwhere(~example["valid"]).tolist() == [[0, 3], [1, 2]]


def test_far_returns_stay(raw):
    (frame,) = build(OUTDOOR, raw)["test"]
    assert stored(frame)["depth_m"][5, 7] == pytest.approx(340 + 47 / 16, rel=1e-4)


def test_a_wrong_count_or_a_missing_partner_is_an_error(raw):
    name = write_scan(raw, "outdoor", "00022", "00022_00194_outdoor_110_040")
    with pytest.raises(DavError, match="val/outdoor holds 2 of 1 published"):
        OUTDOOR.plan(raw)
    name.with_suffix(".png").unlink()
    mask = next((raw / "val/outdoor").glob("*/*/*_110_030_depth_mask.npy"))
    mask.unlink()
    with pytest.raises(DavError, match=f"{mask}, which belongs to .*110_030.png, is missing"):
        OUTDOOR.plan(raw)
    with pytest.raises(DavError, match="val/indoors is missing.*val.tar.gz"):
        INDOOR.plan(raw / "val")


def test_maps_that_do_not_fit_are_errors(raw):
    (item,) = OUTDOOR.plan(raw)["test"]
    np.save(raw / f"{item}_depth_mask.npy", np.ones((8, 6)))
    with pytest.raises(DavError, match="do not belong together"):
        list(OUTDOOR.read(raw, item))
    np.save(raw / f"{item}_depth.npy", np.ones((8, 6, 1), np.float32))
    with pytest.raises(DavError, match="is 6×8, its image .* is 8×6"):
        list(OUTDOOR.read(raw, item))


def test_an_image_whose_mask_is_empty_is_skipped(raw):
    (item,) = OUTDOOR.plan(raw)["test"]
    np.save(raw / f"{item}_depth_mask.npy", np.zeros((6, 8)))
    (skipped,) = OUTDOOR.read(raw, item)
    assert isinstance(skipped, Skipped)


def test_nan_is_invalid(raw):
    (item,) = OUTDOOR.plan(raw)["test"]
    values = np.full((6, 8, 1), 2, np.float32)
    values[2, 2] = np.nan
    np.save(raw / f"{item}_depth.npy", values)
    (frame,) = OUTDOOR.read(raw, item)
    assert not frame.target.valid[2, 2] and not frame.target.valid[0, 3]
    assert frame.target.valid.sum() == 46
