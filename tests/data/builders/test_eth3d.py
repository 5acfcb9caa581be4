import numpy as np
import pytest
from PIL import Image
from raw_files import build, stored, write_image

from dav.data.builders import eth3d
from dav.data.frames import Skipped
from dav.errors import DavError

(BUILDER,) = eth3d.BUILDERS


def paths(raw, scene, stem):
    photograph = raw / scene / "images/dslr_images" / f"{stem}.JPG"
    return photograph, raw / scene / "ground_truth_depth/dslr_images" / f"{stem}.JPG"


def write_pair(raw, scene, stem, values):
    photograph, depth = paths(raw, scene, stem)
    write_image(photograph, values.shape)
    depth.parent.mkdir(parents=True, exist_ok=True)
    depth.write_bytes(values.astype("<f4").tobytes())


def depth_of(first):
    values = first + np.arange(48, dtype=np.float32).reshape(6, 8) / 8
    values[4, 1:3] = np.inf
    values[5, 0] = 0
    values[5, 1] = 0.25  # near, and measured
    return values


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setattr(eth3d, "PHOTOGRAPHS", {"courtyard": 2, "pipes": 1})
    write_pair(tmp_path, "courtyard", "DSC_0286", depth_of(3))
    write_pair(tmp_path, "courtyard", "DSC_0287", depth_of(4))
    write_pair(tmp_path, "pipes", "DSC_0286", depth_of(5))
    return tmp_path


def test_published_counts():
    assert sum(eth3d.PHOTOGRAPHS.values()) == 454 == BUILDER.counts["test"]
    assert len(eth3d.PHOTOGRAPHS) == 13


def test_depth_named_jpg_is_float32_by_rows_with_inf_invalid(raw):
    frames = build(BUILDER, raw)["test"]
    assert [frame.id for frame in frames] == [
        *("courtyard/DSC_0286", "courtyard/DSC_0287", "pipes/DSC_0286")
    ]
    assert frames[0].image == paths(raw, "courtyard", "DSC_0286")[0].read_bytes()
    example = stored(frames[2])
    assert example["depth_m"][0, 0] == pytest.approx(5, rel=1e-4)
    assert example["depth_m"][0, 7] == pytest.approx(5.875, rel=1e-4)
    assert example["depth_m"][5, 7] == pytest.approx(5 + 47 / 8, rel=1e-4)
    invalid = np.argwhere(~example["valid"]).tolist()
    assert invalid == [[4, 1], [4, 2], [5, 0]]


def test_shadow_copies_are_no_photographs(raw):
    (raw / "pipes/images/dslr_images/._DSC_0286.JPG").write_bytes(b"\0\5\x16\7")
    assert len(BUILDER.plan(raw)["test"]) == 3


def test_depth_of_an_undistorted_or_truncated_file_is_an_error(raw):
    photograph, depth = paths(raw, "pipes", "DSC_0286")
    depth.write_bytes(depth.read_bytes()[:-4])
    with pytest.raises(DavError, match=f"{depth} has 188 bytes; .*{photograph}, 8×6, .*192"):
        list(BUILDER.read(raw, ("pipes", "DSC_0286")))
    write_image(photograph, (7, 9))
    with pytest.raises(DavError, match="distorted photograph"):
        list(BUILDER.read(raw, ("pipes", "DSC_0286")))


def test_a_real_jpeg_in_the_place_of_depth_is_an_error(raw):
    photograph, depth = paths(raw, "pipes", "DSC_0286")
    depth.write_bytes(photograph.read_bytes())
    with pytest.raises(DavError, match=f"{depth} has .* bytes"):
        list(BUILDER.read(raw, ("pipes", "DSC_0286")))


def test_depth_lies_as_the_pixels_are_stored_whatever_exif_says(raw):
    photograph, _ = paths(raw, "pipes", "DSC_0286")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photograph).save(photograph, exif=exif)
    (frame,) = BUILDER.read(raw, ("pipes", "DSC_0286"))
    assert frame.target.values.shape == (6, 8)
    assert frame.target.values[0, 7] == 5.875


def test_missing_parts_are_named(raw):
    paths(raw, "courtyard", "DSC_0287")[1].unlink()
    with pytest.raises(DavError, match="ground_truth_depth.*DSC_0287.JPG, which belongs to"):
        BUILDER.plan(raw)
    paths(raw, "courtyard", "DSC_0287")[0].unlink()
    with pytest.raises(DavError, match="holds 1 of 2 published"):
        BUILDER.plan(raw)
    with pytest.raises(DavError, match="courtyard is missing.*dslr_jpg.7z"):
        BUILDER.plan(raw / "pipes")


def test_a_photograph_without_depth_is_skipped(raw):
    write_pair(raw, "pipes", "DSC_0286", np.full((6, 8), np.inf))
    (skipped,) = BUILDER.read(raw, ("pipes", "DSC_0286"))
    assert isinstance(skipped, Skipped) and skipped.id == "pipes/DSC_0286"
