import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_files import build, stored, write_image

from dav.data.builders import hypersim
from dav.data.frames import Skipped
from dav.errors import DavError

h5py = pytest.importorskip("h5py")
(BUILDER,) = hypersim.BUILDERS
SPLIT_HEADER = (
    "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
)
# Rows of the published table: M_cam_from_uv, and the fourth row of M_proj.
ORDINARY = np.array([[0.5773502886169104, 0, 0], [0, 0.4330127164626828, 0], [0, 0, -1.0]])
TILTED = np.array(  # ai_041_007: lens_shift 0.224
    [
        [0.5917716252369174, 0, 0],
        [0, 0.43309846467927854, 0],
        [0, -0.09700335889774327, -1.0249784874103218],
    ]
)
TILTED_M_PROJ = (0.0, -0.2185170747873629, -0.975630232519873)
SHIFTED = np.array(  # ai_042_003: a shift along one axis, an offset and a tilt along the other
    [
        [0.5813867895573526, 0, 0],
        [0, 0.44599980827670044, -0.01189332795487541],
        [-0.1337189640239258, 0.03567998386462623, -1.0244455108528754],
    ]
)
SHIFTED_M_PROJ = (-0.2247204127638374, 0.07816361866587632, -0.9770452551621172)
MATRICES = {"ai_001_001": ORDINARY, "ai_041_007": TILTED, "ai_042_003": SHIFTED}


def write_distance(raw, scene, camera, frame, values):
    path = hypersim._paths(raw, scene, camera, frame)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = np.asarray(values, np.float16)


def write_tables(raw, rows, matrices=MATRICES):
    (raw / hypersim.SPLITS).write_text("\n".join([SPLIT_HEADER, *rows]) + "\n")
    lines = [",".join(["scene_name", "use_camera_physical", *hypersim.MATRIX])]
    for scene, matrix in matrices.items():
        lines.append(",".join([scene, "True", *map(repr, matrix.ravel().tolist())]))
    (raw / hypersim.CAMERAS).write_text("\n".join(lines) + "\n")


@pytest.fixture
def raw(tmp_path):
    rows = [
        "ai_001_001,cam_00,0,True,,train",
        "ai_001_001,cam_00,36,False,CONTENT FLAGGED FOR REMOVAL,",
        "ai_041_007,cam_01,12,True,,val",
        "ai_042_003,cam_00,3,True,,test",
    ]
    write_tables(tmp_path, rows)
    for row in rows:
        scene, camera, frame, published, *_ = row.split(",")
        if published == "True":
            write_image(hypersim._paths(tmp_path, scene, camera, int(frame))[0])
            write_distance(tmp_path, scene, camera, int(frame), np.full((6, 8), 4.0))
    return tmp_path


def test_the_ordinary_camera_has_the_published_focal_length():
    """Depth over distance is f / √(x² + y² + f²) with f = 886.81 px at 1024×768."""
    ratio = hypersim.depth_over_distance((768, 1024), ORDINARY)
    for row, column in ((0, 0), (100, 900), (383, 511), (767, 1023)):
        x, y = column - 511.5, row - 383.5
        expected = 886.81 / np.sqrt(x**2 + y**2 + 886.81**2)
        assert ratio[row, column] == pytest.approx(expected, abs=1e-5)
    assert ratio[0, 0] < 0.82  # a fifth too far at the corners if forgotten


@pytest.mark.parametrize(
    ("matrix", "last_row"), [(TILTED, TILTED_M_PROJ), (SHIFTED, SHIFTED_M_PROJ)]
)
def test_tilted_cameras_agree_with_the_published_projection(matrix, last_row):
    """M_proj's fourth row gives the depth of a point up to one factor, the length of its vector."""
    np.testing.assert_allclose(np.linalg.inv(matrix)[2], last_row, rtol=1e-6, atol=1e-9)
    shape, distance_m = (6, 8), 4.0
    ratio = hypersim.depth_over_distance(shape, matrix)
    row, column = 1, 6
    ray = matrix @ ((column + 0.5) / 8 * 2 - 1, 1 - (row + 0.5) / 6 * 2, 1)
    point = distance_m * ray / np.linalg.norm(ray)
    depth_m = point @ last_row / np.linalg.norm(last_row)
    assert distance_m * ratio[row, column] == pytest.approx(depth_m, rel=1e-6)


@given(st.tuples(*[st.floats(-0.2, 0.2)] * 3), st.floats(2, 50))
def test_the_depth_of_a_plane_is_affine_in_the_image_once_inverted(normal, offset_m):
    """What makes planar depth planar, for tilted cameras too: 1/depth is linear over the picture
    of any plane. Distances, and depth along another axis, are not."""
    normal = np.array([*normal[:2], -1.0])
    shape = (6, 8)
    u, v = np.meshgrid((np.arange(8) + 0.5) / 4 - 1, 1 - (np.arange(6) + 0.5) / 3)
    ray = np.stack([u, v, np.ones(shape)], -1) @ SHIFTED.T
    distance_m = offset_m / (ray @ normal) * np.linalg.norm(ray, axis=-1)
    inverse = 1 / (distance_m * hypersim.depth_over_distance(shape, SHIFTED))
    for axis in (0, 1):
        assert np.abs(np.diff(inverse, 2, axis)).max() < 1e-9


def test_frames_follow_the_official_split(raw):
    found = build(BUILDER, raw)
    ids = {split: [frame.id for frame in frames] for split, frames in found.items()}
    assert ids == {
        "train": ["ai_001_001/cam_00/0000"],
        "val": ["ai_041_007/cam_01/0012"],
        "test": ["ai_042_003/cam_00/0003"],
    }
    (frame,) = found["val"]
    expected = 4 * hypersim.depth_over_distance((6, 8), TILTED)
    np.testing.assert_allclose(frame.target.values, expected, rtol=1e-6)
    np.testing.assert_allclose(stored(frame)["depth_m"], expected, rtol=2e-4)


def test_nan_is_invalid_and_a_map_of_it_skipped(raw):
    values = np.full((6, 8), 4.0)
    values[2, 5], values[3, 0], values[4, 1] = np.nan, np.inf, 0
    write_distance(raw, "ai_001_001", "cam_00", 0, values)
    write_distance(raw, "ai_042_003", "cam_00", 3, np.full((6, 8), np.nan))
    found = build(BUILDER, raw)
    invalid = np.argwhere(~found["train"][0].target.valid).tolist()
    assert invalid == [[2, 5], [3, 0], [4, 1]]
    assert isinstance(found["test"][0], Skipped)


def test_missing_scenes_are_counted(raw, tmp_path_factory):
    write_tables(raw, ["ai_001_001,cam_00,0,True,,train", "ai_002_001,cam_00,0,True,,train"])
    with pytest.raises(DavError, match="no row for ai_002_001"):
        BUILDER.plan(raw)
    matrices = MATRICES | {"ai_002_001": ORDINARY}
    write_tables(
        raw,
        ["ai_001_001,cam_00,0,True,,train", "ai_002_001,cam_00,0,True,,train"],
        matrices,
    )
    with pytest.raises(DavError, match=r"lacks 1 of 2 scenes, ai_002_001 first.*delete their rows"):
        BUILDER.plan(raw)
    with pytest.raises(DavError, match=r"metadata_camera_parameters\.csv is missing"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))


def test_a_missing_map_is_named(raw):
    hypersim._paths(raw, "ai_041_007", "cam_01", 12)[1].unlink()
    with pytest.raises(DavError, match=r"frame\.0012\.depth_meters\.hdf5.*missing"):
        BUILDER.plan(raw)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("ai_001_001,cam_00,x,True,,train", "'x', which is no number"),
        ("ai_001_001,cam_00,0,True,,training", "split 'training'"),
    ],
)
def test_a_table_of_another_form_is_refused(raw, row, told):
    write_tables(raw, [row])
    with pytest.raises(DavError, match=told):
        BUILDER.plan(raw)


def test_tables_without_their_columns_and_matrices_are_refused(raw):
    text = (raw / hypersim.CAMERAS).read_text()
    (raw / hypersim.CAMERAS).write_text(text.replace("M_cam_from_uv_21", "other"))
    with pytest.raises(DavError, match="no column M_cam_from_uv_21"):
        BUILDER.plan(raw)
    (raw / hypersim.CAMERAS).write_text(text.replace("0.4330127164626828", "oops"))
    with pytest.raises(DavError, match="no camera matrix for ai_001_001"):
        BUILDER.plan(raw)
