import cv2
import numpy as np
import pytest

from dav.data.frames import DEPTH, Skipped, Target
from dav.data.framing import frame_of
from dav.data.pairing import files_below, folders_holding, paired_stems
from dav.errors import DavError

PARTS = (("image", "_c.png"), ("depth", "_d.npy"))


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_found_at_any_depth_and_not_inside_one_another(tmp_path):
    for folder in ("b/2/image", "b/1/depth", "a/image/image", "c/d/e/f/image", ".old/image"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "__MACOSX/a/image").mkdir(parents=True)
    assert folders_holding(tmp_path, {"image", "depth"}, 3, "") == ["a", "b/1", "b/2"]
    (tmp_path / "image").mkdir()
    assert folders_holding(tmp_path, {"image"}, 3, "") == ["."]
    with pytest.raises(DavError, match=r"no folder rgb below .*: unpack it"):
        folders_holding(tmp_path, {"rgb"}, 3, "unpack it")
    with pytest.raises(DavError, match=r"nowhere is missing: unpack it"):
        folders_holding(tmp_path / "nowhere", {"rgb"}, 3, "unpack it")


def test_files_below_lists_folder_by_folder(tmp_path):
    touch(tmp_path / "b/2.png", tmp_path / "b/10.png", tmp_path / "a/x/._1.png", tmp_path / "0.txt")
    assert files_below(tmp_path, 1, "") == [(".", ["0.txt"]), ("a", []), ("b", ["10.png", "2.png"])]


def test_pairs_are_sorted_and_hidden_files_passed_over(tmp_path):
    touch(*(tmp_path / "image" / f"{stem}_c.png" for stem in ("b", "a", "a_masked", "._a")))
    touch(*(tmp_path / "depth" / f"{stem}_d.npy" for stem in ("b", "a")), tmp_path / "depth/x.txt")
    assert paired_stems(tmp_path, PARTS, "", skip=("_masked",)) == ["a", "b"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("depth/b_d.npy", r"depth/b_d\.npy is missing, and 0 others.*half-finished.*unpack again"),
        ("image/a_c.png", r"image/a_c\.png is missing"),
    ],
)
def test_a_missing_partner_is_named(tmp_path, gone, message):
    touch(*(tmp_path / f"image/{stem}_c.png" for stem in "abc"))
    touch(*(tmp_path / f"depth/{stem}_d.npy" for stem in "abc"))
    (tmp_path / gone).unlink()
    with pytest.raises(DavError, match=message):
        paired_stems(tmp_path, PARTS, "unpack again")


def test_empty_and_missing_folders_are_named(tmp_path):
    (tmp_path / "image").mkdir()
    with pytest.raises(DavError, match=r"depth is missing: unpack again"):
        paired_stems(tmp_path, PARTS, "unpack again")
    (tmp_path / "depth").mkdir()
    with pytest.raises(DavError, match=r"image holds no \*_c\.png: unpack again"):
        paired_stems(tmp_path, PARTS, "unpack again")


def test_planning_touches_no_file(tmp_path):
    """A million pairs are planned by listing alone; dangling links would fail any other way."""
    for folder, suffix in PARTS:
        (tmp_path / folder).mkdir()
        for index in range(500):
            (tmp_path / folder / f"{index}{suffix}").symlink_to("/nowhere/at/all")
    assert len(paired_stems(tmp_path, PARTS, "")) == 500


def test_images_and_maps_of_different_sizes_and_empty_maps(tmp_path):
    image, values = tmp_path / "a.png", np.ones((3, 4), np.float32)
    cv2.imwrite(str(image), np.zeros((3, 4, 3), np.uint8))
    frame = frame_of("a", image, "a.npy", Target(DEPTH, values, values > 0))
    assert frame.id == "a" and frame.image == image.read_bytes()
    empty = Target(DEPTH, values, values > 2)
    assert frame_of("a", image, "a.npy", empty) == Skipped("a", "a.npy has no valid pixel")
    only_sky = Target(DEPTH, values, values > 0, sky=values > 0)
    assert isinstance(frame_of("a", image, "a.npy", only_sky), Skipped)
    turned = Target(DEPTH, values.T, values.T > 0)
    with pytest.raises(DavError, match=r"a\.npy is 3×4, its image .*a\.png is 4×3"):
        frame_of("a", image, "a.npy", turned)
    with pytest.raises(DavError, match=r"b\.png"):
        frame_of("b", tmp_path / "b.png", "b.npy", empty)
