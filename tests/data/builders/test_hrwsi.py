import shutil

import numpy as np
import pytest
from labelled_trees import everything, measured, survives, trained_on, write_image, write_steps

from dav.data.builders import hrwsi
from dav.errors import DavError

(BUILDER,) = hrwsi.BUILDERS
DISPARITY = np.array([[0, 10, 20, 30], [50, 100, 150, 200], [7, 0, 255, 254]])
MASK = np.array([[255, 255, 255, 0], [255, 255, 1, 255], [0, 0, 255, 255]])


@pytest.fixture
def raw(tmp_path):
    for split, stems in (("train", ("1_b", "1_a")), ("val", ("9",))):
        for stem in stems:
            write_image(tmp_path / split / "imgs" / f"{stem}.jpg")
            write_steps(tmp_path / split / "gts" / f"{stem}.png", DISPARITY, np.uint8)
            write_steps(tmp_path / split / "valid_masks" / f"{stem}.png", MASK, np.uint8)
    return tmp_path


def test_splits_are_the_folders(raw):
    ids = {split: [each.id for each in found] for split, found in everything(BUILDER, raw).items()}
    assert ids == {"train": ["train/1_a", "train/1_b"], "val": ["val/9"]}


def test_disparity_is_used_as_it_is_and_never_inverted(raw):
    frame = everything(BUILDER, raw)["val"][0]
    example = trained_on(frame)
    assert (example["valid"] == (MASK > 0)).all()
    assert example["disparity"][1].tolist() == [51, 101, 151, 201]
    assert example["disparity"][2, 2] > example["disparity"][1, 0]  # larger is nearer
    difference = example["disparity"] - DISPARITY
    assert (difference[example["valid"]] == 1).all()  # one shift for all: affine-invariant
    assert not example["disparity"][~example["valid"]].any()


def test_the_farthest_measured_pixel_stays_measured_and_nearer_than_sky(raw):
    example = trained_on(everything(BUILDER, raw)["val"][0])
    assert DISPARITY[0, 0] == 0 and example["valid"][0, 0] and example["disparity"][0, 0] == 1


def test_it_has_no_metres(raw):
    with pytest.raises(DavError, match="has disparity, not depth in metres"):
        measured(everything(BUILDER, raw)["val"][0])


def test_the_archives_own_folder_may_stand_between(raw, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    shutil.copytree(raw, above / "HR-WSI")
    assert [each.id for each in everything(BUILDER, above)["val"]] == ["val/9"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("val", r"val is missing: unpack HR-WSI"),
        ("train/valid_masks", r"valid_masks is missing"),
        ("train/gts/1_a.png", r"gts/1_a\.png is missing.*half-finished"),
        ("train/valid_masks/1_b.png", r"valid_masks/1_b\.png is missing"),
    ],
)
def test_what_is_missing_is_named(raw, gone, message):
    path = raw / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DavError, match=message):
        BUILDER.plan(raw)


def test_masks_and_images_of_other_sizes_are_named(raw):
    write_steps(raw / "val/valid_masks/9.png", MASK.T, np.uint8)
    with pytest.raises(DavError, match=r"gts/9\.png is \(3, 4\) and its mask .*9\.png \(4, 3\)"):
        everything(BUILDER, raw)
    write_steps(raw / "val/valid_masks/9.png", MASK, np.uint8)
    write_image(raw / "val/imgs/9.jpg", 6, 8)
    with pytest.raises(DavError, match=r"9\.jpg is 8×6"):
        everything(BUILDER, raw)


def test_damaged_maps(raw):
    survives(BUILDER, raw, raw / "train/gts/1_a.png")
    survives(BUILDER, raw, raw / "train/valid_masks/1_a.png")
