import cv2
import numpy as np
import pytest
from raw_files import build, ramp, stored, write_image, write_steps

from dav.data.builders import seven_scenes
from dav.errors import DavError

(BUILDER,) = seven_scenes.BUILDERS


@pytest.fixture
def raw(tmp_path):
    for scene, train, test in (("chess", (4, 6), (3,)), ("redkitchen", (1,), (12,))):
        folder = tmp_path / scene
        for k in (*train, *test):
            for frame in (0, 1):
                stem = folder / f"seq-{k:02d}" / f"frame-{frame:06d}"
                write_image(stem.with_name(stem.name + ".color.png"), seed=k)
                write_steps(stem.with_name(stem.name + ".depth.png"), ramp(first=100 * k + frame))
                stem.with_name(stem.name + ".pose.txt").write_text("1 0 0 0\n" * 4)
        for name, sequences in (("TrainSplit.txt", train), ("TestSplit.txt", test)):
            (folder / name).write_text("".join(f"sequence{k} \r\n" for k in sequences))
    return tmp_path


def test_splits_are_the_authors_and_values_millimetres(raw):
    found = build(BUILDER, raw)
    assert [frame.id for frame in found["test"]] == [
        *("chess/seq-03/frame-000000", "chess/seq-03/frame-000001"),
        *("redkitchen/seq-12/frame-000000", "redkitchen/seq-12/frame-000001"),
    ]
    assert [frame.id[:12] for frame in found["train"][::2]] == [
        *("chess/seq-04", "chess/seq-06"),
        "redkitchen/s",
    ]
    frame = found["test"][3]
    assert frame.target.values[0, 2] == pytest.approx(1.221)
    assert stored(frame)["depth_m"][5, 0] == pytest.approx(1.601)


def test_zero_and_65535_are_invalid(raw):
    steps = ramp()
    steps[1, 2], steps[4, 7] = 0, 65535
    write_steps(raw / "chess/seq-03/frame-000000.depth.png", steps)
    target = build(BUILDER, raw)["test"][0].target
    assert np.argwhere(~target.valid).tolist() == [[1, 2], [4, 7]]


def test_what_is_missing_or_torn_is_named(raw, tmp_path_factory):
    with pytest.raises(DavError, match=r"TrainSplit\.txt.*7-Scenes"):
        BUILDER.plan(tmp_path_factory.mktemp("empty"))
    (raw / "chess/seq-06/frame-000001.depth.png").unlink()
    with pytest.raises(DavError, match=r"seq-06/frame-000001\.depth\.png.*missing"):
        BUILDER.plan(raw)
    (raw / "chess/TrainSplit.txt").write_text("sequence4\nsequence9\n")
    with pytest.raises(DavError, match=r"chess/seq-09.*missing.*seq-XX\.zip"):
        BUILDER.plan(raw)
    (raw / "chess/TrainSplit.txt").write_text("sequence4\nseq-09\n")
    with pytest.raises(DavError, match=r"TrainSplit\.txt, line 2: 'seq-09'"):
        BUILDER.plan(raw)
    (raw / "chess/TestSplit.txt").unlink()
    (raw / "chess/TrainSplit.txt").write_text("sequence4\n")
    with pytest.raises(DavError, match=r"TestSplit\.txt is missing"):
        BUILDER.plan(raw)


def test_a_real_kitchen(extra_data, tmp_path):
    """Forty frames; the sample keeps the images as JPEG, the set as PNG."""
    source, folder = extra_data / "samples/redkitchen_7scenes", tmp_path / "redkitchen"
    for k, stems in ((1, (0, 25)), (3, (50,))):
        (folder / f"seq-{k:02d}").mkdir(parents=True)
        for stem in stems:
            name = f"frame-{stem:06d}"
            image = cv2.imread(str(source / f"{name}.color.jpg"))
            cv2.imwrite(str(folder / f"seq-{k:02d}/{name}.color.png"), image)
            depth = (source / f"{name}.depth.png").read_bytes()
            (folder / f"seq-{k:02d}/{name}.depth.png").write_bytes(depth)
    (folder / "TrainSplit.txt").write_text("sequence1\n")
    (folder / "TestSplit.txt").write_text("sequence3\n")
    found = build(BUILDER, tmp_path)
    assert len(found["train"]) == 2 and len(found["test"]) == 1
    for frame in found["train"] + found["test"]:
        low, middle, high = np.percentile(frame.target.values[frame.target.valid], [1, 50, 99])
        assert 0.4 < low < middle < high < 10 and 0.8 < middle < 4
        assert 0.5 < frame.target.valid.mean() < 1
    example = stored(found["test"][0])
    assert example["depth_m"].max() < 20 and example["image"].shape == (480, 640, 3)
