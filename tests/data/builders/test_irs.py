import numpy as np
import pytest
from labelled_trees import everything, measured, survives, trained_on, write_exr, write_image

from dav.data.builders import irs
from dav.data.frames import Skipped
from dav.errors import DavError

(BUILDER,) = irs.BUILDERS
DISPARITY = np.array([[48, 24, 12, 6], [4.8, 0, -1, np.inf], [0.48, np.nan, 96, 0.1]])


def write_frame(scene, index, disparity=DISPARITY, **options):
    write_image(scene / f"l_{index}.png")
    write_image(scene / f"r_{index}.png")
    write_exr(scene / f"d_{index}.exr", disparity, **options)
    write_exr(scene / f"n_{index}.exr", DISPARITY)


@pytest.fixture
def raw(tmp_path):
    for index in (2, 10, 1):
        write_frame(tmp_path / "Home/RoyalRoom_T1", index)
    write_frame(tmp_path / "Store/Store/Supermarket", 7)  # as its zip file unpacks
    write_frame(tmp_path / "OfficeKIT", 3, channel="G")  # unpacked beside the rest
    write_frame(tmp_path / "IRS_small/Home/Tiny", 5)
    return tmp_path


def ids(raw):
    return {split: [each.id for each in found] for split, found in everything(BUILDER, raw).items()}


def write_list(raw, name, *frames, folder="lists"):
    lines = []
    for frame in frames:
        scene, _, index = frame.rpartition("/")
        kinds = ("l_%s.png", "r_%s.png", "d_%s.exr", "n_%s.exr")
        lines.append(" ".join(f"IRSDataset/{scene}/{kind % index}" for kind in kinds) + "\t\n")
    (raw / folder).mkdir(exist_ok=True)
    (raw / folder / name).write_text("".join(lines) + "\n")


def test_scenes_are_found_however_they_were_unpacked_and_the_small_edition_is_not(raw):
    home = [f"RoyalRoom_T1/{index}" for index in (1, 2, 10)]
    assert ids(raw) == {"train": [*home, "OfficeKIT/3", "Supermarket/7"]}


def test_lists_give_the_splits_and_leave_out_what_they_do_not_name(raw):
    write_list(raw, "IRSDataset_TRAIN.list", "Store/Supermarket/7", "Home/RoyalRoom_T1/10")
    write_list(raw, "IRSDataset_TEST.list", "Office/OfficeKIT/3")
    train = ["Supermarket/7", "RoyalRoom_T1/10"]
    assert ids(raw) == {"train": train, "test": ["OfficeKIT/3"]}


def test_lists_are_complete_and_so_is_what_they_name(raw):
    write_list(raw, "IRSDataset_TRAIN.list", "Home/RoyalRoom_T1/10", folder=".")
    with pytest.raises(DavError, match=r"IRSDataset_TEST\.list is missing beside"):
        BUILDER.plan(raw)
    write_list(raw, "IRSDataset_TEST.list", "Home/RoyalRoom_T1/99", folder=".")
    with pytest.raises(
        DavError, match=r"RoyalRoom_T1/l_99\.png, which .*_TEST\.list names, is mis"
    ):
        BUILDER.plan(raw)
    (raw / "IRSDataset_TEST.list").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(DavError, match=r"_TEST\.list names"):
        BUILDER.plan(raw)


@pytest.mark.parametrize("number", [0, 3])
def test_disparity_in_pixels_is_used_as_it_is(raw, number):
    """Were it taken for depth, 48 pixels, one metre away, would come out as the farthest."""
    frame = everything(BUILDER, raw)["train"][number]
    example = trained_on(frame)
    assert example["valid"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 1, 1]]
    known = example["disparity"][[0, 0, 1, 2], [0, 3, 0, 2]]
    np.testing.assert_allclose(known, [48, 6, 4.8, 96], rtol=1e-3)
    np.testing.assert_allclose(48 / known, [1, 8, 10, 0.5], rtol=1e-3)  # metres
    assert not example["disparity"][~example["valid"]].any()
    with pytest.raises(DavError, match="has disparity"):
        measured(frame)


def test_frames_whose_map_is_of_another_size_or_empty_are_left_out(raw):
    write_frame(raw / "OfficeKIT", 4, DISPARITY[:, :2])
    write_frame(raw / "OfficeKIT", 5, np.zeros((3, 4)))
    wrong, empty = everything(BUILDER, raw)["train"][4:6]
    assert wrong == Skipped("OfficeKIT/4", "image (3, 4) and disparity (3, 2) differ in size")
    assert empty == Skipped("OfficeKIT/5", "d_5.exr has no valid pixel")


@pytest.mark.parametrize("name", ["l_2.png", "d_2.exr"])
def test_half_a_pair_is_an_error(raw, name):
    (raw / "Home/RoyalRoom_T1" / name).unlink()
    with pytest.raises(DavError, match=f"{name} is missing, and 0 others.*half-finished"):
        BUILDER.plan(raw)


def test_wrong_folders_are_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"no l_\*\.png and d_\*\.exr below.*SCENE/l_1\.png"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    write_frame(raw / "Office/OfficeKIT", 3)
    with pytest.raises(DavError, match="OfficeKIT stands twice"):
        BUILDER.plan(raw)


def test_damaged_maps(raw):
    survives(BUILDER, raw, raw / "OfficeKIT/d_3.exr")
