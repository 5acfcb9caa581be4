import numpy as np
import pytest
from raw_files import build, stored, stored_disparity, write_image

from dav.data.builders import sintel
from dav.errors import DavError

FINAL, CLEAN = sintel.BUILDERS


def write_dpt(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    head = np.float32(202021.25).tobytes() + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + values.astype("<f4").tobytes())
    return path


def depth_of(scene, number):
    values = np.arange(48, dtype=np.float32).reshape(6, 8) / 4 + len(scene) + number
    values[0, :2] = 100000, 99999
    values[1, 0] = 9000
    return values


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Two scenes of a few frames, final and clean."""
    monkeypatch.setattr(sintel, "FRAMES", {"alley_1": 3, "ambush_2": 2})
    for scene, count in sintel.FRAMES.items():
        for number in range(1, count + 1):
            for seed, rendering in enumerate(("final", "clean")):
                write_image(
                    tmp_path / f"training/{rendering}/{scene}/frame_{number:04d}.png", seed=seed
                )
            write_dpt(
                tmp_path / f"training/depth/{scene}/frame_{number:04d}.dpt", depth_of(scene, number)
            )
    return tmp_path


def test_published_counts():
    assert sum(sintel.FRAMES.values()) == 1064 and len(sintel.FRAMES) == 23
    assert [builder.counts for builder in sintel.BUILDERS] == [{"test": 1064}] * 2


def test_final_and_clean_share_depth_and_differ_in_images(raw):
    final, clean = build(FINAL, raw)["test"], build(CLEAN, raw)["test"]
    assert [frame.id for frame in final] == [
        *(f"alley_1/frame_000{number}" for number in (1, 2, 3)),
        *(f"ambush_2/frame_000{number}" for number in (1, 2)),
    ]
    for one, other in zip(final, clean, strict=True):
        assert one.id == other.id and one.image != other.image
        np.testing.assert_array_equal(one.target.values, other.target.values)
    assert final[0].image == (raw / "training/final/alley_1/frame_0001.png").read_bytes()


def test_metres_rows_from_the_top_and_sky(raw):
    frame = build(FINAL, raw)["test"][4]  # ambush_2, 2
    example = stored(frame)
    assert example["depth_m"][0, 2] == pytest.approx(10.5, rel=1e-4)
    assert example["depth_m"][5, 7] == pytest.approx(21.75, rel=1e-4)
    assert example["depth_m"][5, 0] == pytest.approx(20, rel=1e-4)
    assert not example["valid"][0, :2].any() and example["valid"].sum() == 46
    assert example["depth_m"][1, 0] == pytest.approx(9000, rel=1e-4)  # far, and not the sky
    disparity = stored_disparity(frame)
    assert disparity["valid"].all() and (disparity["disparity"][0, :2] == 0).all()


def test_depth_that_is_not_finite_or_not_positive_is_invalid(raw):
    values = depth_of("alley_1", 1)
    values[3, :4] = np.nan, 0, -1, np.inf
    values[4, 0] = 10000  # already sky
    write_dpt(raw / "training/depth/alley_1/frame_0001.dpt", values)
    frame = build(FINAL, raw)["test"][0]
    assert not stored(frame)["valid"][3, :4].any() and frame.target.valid.sum() == 48 - 2 - 4 - 1
    assert np.argwhere(frame.target.sky).tolist() == [[0, 0], [0, 1], [3, 3], [4, 0]]


def test_half_a_download_is_an_error(raw):
    (raw / "training/depth/alley_1/frame_0002.dpt").unlink()
    with pytest.raises(DavError, match="frame_0002.dpt, which belongs to .*frame_0002.png"):
        FINAL.plan(raw)
    (raw / "training/final/alley_1/frame_0003.png").unlink()
    with pytest.raises(DavError, match="alley_1 holds 2 of 3 published"):
        FINAL.plan(raw)
    with pytest.raises(DavError, match="training/final/alley_1 is missing.*MPI-Sintel-complete"):
        FINAL.plan(raw / "training")


def test_width_and_height_exchanged_or_a_wrong_tag_are_errors(raw):
    path = raw / "training/depth/alley_1/frame_0001.dpt"
    write_dpt(path, depth_of("alley_1", 1).T)
    with pytest.raises(DavError, match=f"{path} is 6×8, its image .* is 8×6"):
        list(FINAL.read(raw, ("alley_1", "frame_0001")))
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(DavError, match=f"cannot read {path}"):
        list(FINAL.read(raw, ("alley_1", "frame_0001")))
