import numpy as np
import pytest
from labelled_trees import everything, measured, survives, trained_on, write_image, write_pfm

from dav.data.builders import blended_mvs
from dav.data.frames import Skipped
from dav.errors import DavError

(BUILDER,) = blended_mvs.BUILDERS
TRAIN, OTHER = "5c1f33f1d33e1f2e4aa6dda4", "57f8d9bbe73f6760f10e916a"
VALIDATION = "5b7a3890fc8fcf6781e2593a"
DEPTH = np.array([[2, 4, 0, 8], [10, 20, 40, np.inf], [100, 200, 400, np.nan]])


def write_view(scene, index, depth=DEPTH, **options):
    write_image(scene / f"blended_images/{index:08d}.jpg")
    write_image(scene / f"blended_images/{index:08d}_masked.jpg", value=0)
    write_pfm(scene / f"rendered_depth_maps/{index:08d}.pfm", depth, **options)


@pytest.fixture
def raw(tmp_path):
    for scene in (TRAIN, OTHER, VALIDATION):
        write_view(tmp_path / scene, 0)
    write_view(tmp_path / TRAIN, 1, 2 * DEPTH, big_endian=True)
    (tmp_path / TRAIN / "cams").mkdir()
    (tmp_path / TRAIN / "cams/pair.txt").touch()
    return tmp_path


def test_splits_follow_the_validation_list_and_masked_copies_are_left_out(raw):
    ids = {split: [each.id for each in found] for split, found in everything(BUILDER, raw).items()}
    assert ids == {
        "train": [f"{OTHER}/00000000", f"{TRAIN}/00000000", f"{TRAIN}/00000001"],
        "val": [f"{VALIDATION}/00000000"],
    }
    assert len(blended_mvs.VALIDATION) == 7


def test_depth_is_read_from_the_bottom_up_in_either_byte_order(raw):
    _, little, big = everything(BUILDER, raw)["train"]
    assert little.target.values[0, 0] == 2 and little.target.values[2, 1] == 200
    assert big.target.values[0, 1] == 8 and big.target.values[2, 0] == 200
    assert little.image == (raw / TRAIN / "blended_images/00000000.jpg").read_bytes()


def test_training_sees_inverse_depth_and_no_metres_are_claimed(raw):
    frame = everything(BUILDER, raw)["val"][0]
    example = trained_on(frame)
    invalid = [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert example["valid"].tolist() == (~np.array(invalid, bool)).tolist()
    assert example["disparity"][0, 1] == pytest.approx(1 / 4, rel=1e-3)
    assert example["disparity"][2, 0] == pytest.approx(1 / 100, rel=1e-3)
    assert not example["disparity"][~example["valid"]].any()
    with pytest.raises(DavError, match="not depth in metres"):
        measured(frame)


def test_empty_renderings_are_left_out(raw):
    write_view(raw / OTHER, 0, 0 * DEPTH[:, :1] * np.ones(4))
    skipped = everything(BUILDER, raw)["train"][0]
    assert skipped == Skipped(f"{OTHER}/00000000", "00000000.pfm has no valid pixel")


def test_scenes_below_the_archives_own_folders_are_found(raw):
    (raw / "BlendedMVS+").mkdir()
    (raw / OTHER).rename(raw / "BlendedMVS+" / OTHER)
    assert everything(BUILDER, raw)["train"][0].id == f"{OTHER}/00000000"
    write_view(raw / OTHER, 0)
    with pytest.raises(DavError, match=f"{OTHER} stands twice"):
        BUILDER.plan(raw)


def test_lists_find_scenes_that_were_not_unpacked(raw):
    (raw / "BlendedMVS_list.txt").write_text(f"{TRAIN}\n{OTHER}\n{VALIDATION}\n")
    (raw / "BlendedMVS++_list.txt").write_text("000000000000000000000000\n")  # not downloaded
    assert sum(map(len, BUILDER.plan(raw).values())) == 4
    (raw / "BlendedMVS_list.txt").write_text(f"{TRAIN}\n58c4bb4f4a69c55606122be4\n")
    with pytest.raises(DavError, match=r"58c4bb4f4a69c55606122be4 is missing.*half-finished"):
        BUILDER.plan(raw)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("rendered_depth_maps/00000001.pfm", r"00000001\.pfm is missing"),
        ("blended_images/00000001.jpg", r"00000001\.jpg is missing"),
    ],
)
def test_half_a_pair_is_an_error(raw, gone, message):
    (raw / TRAIN / gone).unlink()
    with pytest.raises(DavError, match=message):
        BUILDER.plan(raw)


def test_other_folders_and_other_sizes_are_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"blended_images.*SCENE"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    write_image(raw / VALIDATION / "blended_images/00000000.jpg", 6, 8)
    with pytest.raises(DavError, match=r"00000000\.pfm is 4×3, its image .*00000000\.jpg is 8×6"):
        everything(BUILDER, raw)


def test_damaged_maps(raw):
    survives(BUILDER, raw, raw / TRAIN / "rendered_depth_maps/00000000.pfm")
