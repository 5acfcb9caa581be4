import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dav.data import labels, sources
from dav.errors import DavError

MAPS = arrays.arrays(
    np.float32, (5, 7), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
)


@given(MAPS)
def test_a_label_comes_back_within_half_a_step_of_its_range(disparity):
    label = labels.decode_label(labels.encode_label("x", disparity))
    spread = float(disparity.max() - disparity.min())
    rounding = 1e-6 * np.abs(disparity).max()
    assert np.abs(label["disparity"] - disparity).max() <= 0.501 * spread / 65535 + rounding
    assert label["id"] == "x" and label["valid"].all()
    assert label["disparity"].dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(value):
    with pytest.raises(DavError, match="photo 7.*not finite"):
        labels.encode_label("photo 7", np.array([[1, value]], np.float32))


def records(count):
    return [labels.encode_label(f"id{i}", np.full((2, 2), i, np.float32)) for i in range(count)]


def test_shards_read_back_in_order_and_only_finished_ones_count(tmp_path):
    labels.write_shard(tmp_path, "b-00000", records(3), "teacher A")
    labels.write_shard(tmp_path, "b-00001", records(2), "teacher A")
    opened = labels.open_labels(tmp_path, ["b-00000", "b-00001"])
    assert [opened[i]["id"] for i in range(5)] == ["id0", "id1", "id2", "id0", "id1"]
    (tmp_path / "b-00002").write_bytes(b"half")  # no manifest line: does not exist
    assert set(labels.finished_shards(tmp_path, "teacher A")) == {"b-00000", "b-00001"}
    assert not labels.finished_shards(tmp_path, "teacher B")


def test_a_truncated_shard_is_not_finished(tmp_path):
    labels.write_shard(tmp_path, "b-00000", records(3), "teacher A")
    content = (tmp_path / "b-00000").read_bytes()
    (tmp_path / "b-00000").write_bytes(content[:-1])
    assert not labels.finished_shards(tmp_path, "teacher A")


def test_a_torn_manifest_line_is_forgotten(tmp_path):
    labels.write_shard(tmp_path, "b-00000", records(1), "teacher A")
    with open(tmp_path / "manifest.jsonl", "a") as manifest:
        manifest.write('{"shard": "b-000')
    assert set(labels.finished_shards(tmp_path, "teacher A")) == {"b-00000"}
    labels.write_shard(tmp_path, "b-00001", records(1), "teacher A")
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["shard"] for line in lines] == ["b-00000", "b-00001"]


def test_writing_a_shard_twice_gives_the_same_bytes(tmp_path):
    labels.write_shard(tmp_path, "one", records(3), "t")
    labels.write_shard(tmp_path, "two", records(3), "t")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_labels_of_other_images_are_refused():
    images, wrong = [{"id": "a"}], [{"id": "b"}]
    with pytest.raises(DavError, match="'b'.*'a'"):
        sources.WithLabels(images, wrong)[0]
