import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from labelled_trees import everything, measured, survives, trained_on, write_hdf5, write_image

from dav.data.builders import megadepth
from dav.data.frames import Skipped
from dav.errors import DavError

(BUILDER,) = megadepth.BUILDERS
DENSE = "phoenix/S6/zl548/MegaDepth_v1/0003/dense0"
# 400 depths from 10 to 409 with a hole; the smallest and the largest are beyond the percentiles.
DEPTH = (10 + np.arange(400, dtype=np.float32)).reshape(20, 20)
DEPTH[4, 7] = 0


def write_photo(dense, stem, depth=DEPTH, suffix=".jpg", size=(20, 20)):
    write_image(dense / "imgs" / f"{stem}{suffix}", *size)
    if depth is not None:
        write_hdf5(dense / "depths" / f"{stem}.h5", depth)


@pytest.fixture
def raw(tmp_path):
    write_photo(tmp_path / DENSE, "b.2")
    write_photo(tmp_path / DENSE, "a", suffix=".JPG")
    write_photo(tmp_path / DENSE.replace("dense0", "dense1"), "a")
    return tmp_path


def test_all_photographs_are_for_training(raw):
    ids = {split: [each.id for each in found] for split, found in everything(BUILDER, raw).items()}
    assert ids == {"train": ["0003/dense0/a", "0003/dense0/b.2", "0003/dense1/a"]}


def test_raw_may_be_any_folder_above_the_scenes(raw):
    below = raw / "phoenix/S6/zl548/MegaDepth_v1"
    assert everything(BUILDER, below)["train"][0].id == "0003/dense0/a"
    with pytest.raises(DavError, match="is not in the folder of a scene"):
        BUILDER.plan(below / "0003/dense0")


def test_depth_is_up_to_scale_and_zero_unmeasured(raw):
    frame = everything(BUILDER, raw)["train"][0]
    example = trained_on(frame)
    assert example["disparity"][4, 6] == pytest.approx(1 / 96, rel=1e-3)
    assert example["disparity"][6, 4] == pytest.approx(1 / 134, rel=1e-3)
    assert not example["valid"][4, 7] and not example["disparity"][4, 7]
    with pytest.raises(DavError, match="has depth, not depth in metres"):
        measured(frame)


def test_outliers_are_unmeasured_and_do_not_squeeze_the_rest(raw):
    depth = DEPTH.copy()
    depth[0, 0], depth[19, 19] = 1e-3, 1e6
    write_photo(raw / DENSE, "a", depth, suffix=".JPG")
    example = trained_on(everything(BUILDER, raw)["train"][0])
    unmeasured = np.argwhere(~example["valid"]).tolist()
    assert unmeasured == [[0, 0], [4, 7], [19, 19]]
    assert example["disparity"].max() == pytest.approx(1 / 11, rel=1e-3)


def test_ordinal_maps_are_left_out_not_clipped(raw):
    ordinal = np.where(DEPTH > 200, 1.0, 0.0)
    ordinal[0, :3] = -1
    write_photo(raw / DENSE, "a", ordinal, suffix=".JPG")
    skipped, kept = everything(BUILDER, raw)["train"][:2]
    assert skipped == Skipped("0003/dense0/a", "its map is ordinal (it has negative values)")
    assert kept.id == "0003/dense0/b.2"


def test_photographs_without_a_map_or_with_an_empty_one_are_left_out(raw):
    write_photo(raw / DENSE, "c", None)
    write_photo(raw / DENSE, "d", DEPTH * 0)
    no_map, empty = everything(BUILDER, raw)["train"][2:4]
    assert no_map == Skipped("0003/dense0/c", "it has no depth map")
    assert empty == Skipped("0003/dense0/d", "d.h5 has no valid pixel")


def test_sizes_that_differ_by_rounding_are_made_equal(raw):
    depth = np.repeat(np.arange(1, 23, dtype=np.float32)[:, None], 19, axis=1)
    write_photo(raw / DENSE, "a", depth, suffix=".JPG")
    values = everything(BUILDER, raw)["train"][0].target.values
    assert values.shape == (20, 20) and set(np.unique(values)) <= set(range(1, 23))
    assert (values[:, 0] == values[:, 19]).all() and (np.diff(values[:, 0]) > 0).all()


def test_sizes_that_differ_by_more_are_named(raw):
    write_photo(raw / DENSE, "a", np.ones((40, 30)), suffix=".JPG", size=(30, 40))
    with pytest.raises(DavError, match=r"a\.h5 is 30×40, its image .*a\.JPG is 40×30"):
        everything(BUILDER, raw)


def test_what_is_missing_or_double_is_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"no folder depths or imgs.*MegaDepth_v1\.tar\.gz"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    write_image(raw / DENSE / "imgs/a.png")
    with pytest.raises(DavError, match=r"holds a\.JPG and a\.png: keep one"):
        BUILDER.plan(raw)
    (raw / DENSE / "imgs/a.png").unlink()
    (raw / DENSE / "imgs/a.JPG").unlink()
    with pytest.raises(DavError, match=r"depths/a\.h5 has no image.*half-finished"):
        BUILDER.plan(raw)
    shutil.rmtree(raw / DENSE / "imgs")
    with pytest.raises(DavError, match=r"dense0/imgs is missing"):
        BUILDER.plan(raw)


def test_another_dataset_or_shape_is_named(raw):
    write_hdf5(raw / DENSE / "depths/a.h5", DEPTH, name="disparity")
    with pytest.raises(DavError, match=r"a\.h5.*no 'depth'"):
        everything(BUILDER, raw)
    write_hdf5(raw / DENSE / "depths/a.h5", DEPTH[..., None])
    with pytest.raises(DavError, match=r"a\.h5: its depth has the shape"):
        everything(BUILDER, raw)


def test_damaged_maps(raw):
    survives(BUILDER, raw, raw / DENSE / "depths/a.h5")


DEPTHS = st.one_of(st.floats(0, 1e6, width=32), st.sampled_from([0, np.inf, np.nan]))


@given(arrays.arrays(np.float32, (21, 20), elements=DEPTHS))
def test_inliers_are_positive_finite_and_nearly_all(depth):
    measured_before = np.isfinite(depth) & (depth > 0)
    valid = megadepth.inliers(depth)
    assert not (valid & ~measured_before).any()
    assert valid.any() == measured_before.any()
    assert measured_before.sum() - valid.sum() <= 2 * (0.005 * measured_before.sum())
    if valid.any():  # what is left out lies outside of what stays
        out = depth[measured_before & ~valid]
        assert ((out < depth[valid].min()) | (out > depth[valid].max())).all()
