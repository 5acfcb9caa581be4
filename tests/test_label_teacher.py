"""The teacher's look: few shapes, mirrored or not, images alone and in company."""

import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from unittest import mock

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from random_weights import TINY, random_weights

from dav import label, label_run, label_set, label_teacher, viz
from dav.data import labels
from dav.data.transforms import network_size
from dav.errors import DavError
from dav.label_teacher import Teacher, make_start, network_shape
from dav.models.depth_anything import DepthAnything

MODEL = DepthAnything(TINY)
SIDES = st.integers(1, 4000)


@pytest.fixture(scope="module")
def params():
    return random_weights(TINY, 0).params


@pytest.fixture(scope="module")
def plain(params):
    """The network on the one device there is."""
    return make_start(MODEL, params, label_teacher.local_mesh())


def images(count, height=42, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def test_there_are_nine_shapes_of_about_any_aspect_ratio():
    ratios = np.exp(np.linspace(-2, 2, 4001))
    shapes = {network_shape(1000 * ratio, 1000, 518, buckets=True) for ratio in ratios}
    assert len(shapes) == 9 and all(min(shape) == 518 for shape in shapes)
    assert {(518, 518), (518, 686), (518, 784), (518, 924), (602, 518)} < shapes


@given(height=SIDES, width=SIDES)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_no_aspect_ratio_changes_by_more_than_said(height, width):
    rows, columns = network_shape(height, width, 5180, buckets=True)  # patches hardly round here
    ratio, change = width / height, (columns / rows) / (width / height)
    if 9 / 16 <= ratio <= 16 / 9:
        assert 1 / 1.09 < change < 1.09
    elif 1 / 2 <= ratio <= 2:
        assert 1 / 1.13 < change < 1.13
    own = network_shape(height, width, 518, buckets=False)
    assert own == network_size(height, width, 518)


def test_a_label_has_the_size_of_its_own_aspect_ratio():
    teacher = Teacher(None, 1, "", 1, 518, True)
    assert teacher.shape(480, 600) == (518, 686)
    assert teacher.label_size(480, 600) == network_size(480, 600, 518) == (518, 644)


def test_mirrored_means_the_mean_of_two_looks(params, plain):
    shown = images(1)
    mirrored = shown[:, :, ::-1].copy()
    expected = (plain(shown) + plain(mirrored)[:, :, ::-1]) / 2
    both = make_start(MODEL, params, label_teacher.local_mesh(), flip=True)
    np.testing.assert_allclose(both(shown), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both(mirrored)[:, :, ::-1], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(plain(shown) - expected).max() > 1e-3


class Shard:
    """Records whose images are of several sizes, by index."""

    def __init__(self, photos):
        self._photos = photos

    def __len__(self):
        return len(self._photos)


def label_all(photos, monkeypatch, start, *, batch):
    """The decoded labels of photos as one shard, and the batches' sizes."""
    seen = []

    def watched(images):
        seen.append(len(images))
        return start(images)

    def ready(item, teacher):
        size = photos[item.index].shape[:2]
        image = label_run.resize_image(photos[item.index], teacher.shape(*size))
        return label_run.Ready(str(item.index), image, teacher.label_size(*size))

    monkeypatch.setattr(label_run, "ready", ready)
    teacher = Teacher(watched, 1, "cpu", batch, 42, True)
    shard = label_run.ShardInHand("set", None, Shard(photos))
    done = label_run.run(teacher, [shard], lambda shard: len(shard.labels), check=lambda: None)
    assert [count for _, count in done] == [len(photos)]
    found = [labels.decode_label(shard.labels[index]) for index in range(len(photos))]
    assert [label["id"] for label in found] == [str(index) for index in range(len(photos))]
    return [label["disparity"] for label in found], seen


def test_what_an_image_gives_does_not_depend_on_its_company(plain, monkeypatch):
    photos = [images(1, 42, 42 + 14 * (seed % 2), seed)[0] for seed in range(6)]
    whole, _ = label_all(photos, monkeypatch, plain, batch=1)
    alone, _ = label_all(photos[4:5], monkeypatch, plain, batch=1)
    backwards, _ = label_all(photos[::-1], monkeypatch, plain, batch=1)
    np.testing.assert_array_equal(alone[0], whole[4])
    for one, other in zip(whole, backwards[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [
        (22, 8, [8, 8, 2, 2, 2]),
        (23, 8, [8, 8, 8]),
        (16, 8, [8, 8]),
        (7, 8, [8]),
        (3, 8, [2, 2]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batches_are_full_or_small_and_lose_nothing(count, batch, sizes, monkeypatch):
    photos = [images(1, 42, 42, seed)[0] for seed in range(count)]
    found, seen = label_all(photos, monkeypatch, lambda i: np.float32(i[..., 0]), batch=batch)
    assert seen == sizes
    for one, photo in zip(found, photos, strict=True):
        np.testing.assert_allclose(one, photo[..., 0], atol=0.3)


def test_shares_of_several_devices_are_looked_at_as_by_one(plain, environment, tmp_path):
    """The same images by three devices at once and by one after the other; equal to rounding."""
    script = """
import sys; sys.path.insert(0, "tests")
import numpy as np
from simulated import simulate_devices
simulate_devices(3)
from test_label_teacher import MODEL, images, random_weights, TINY
from dav.label_teacher import local_mesh, make_start
mesh = local_mesh()
assert mesh.size == 3
found = make_start(MODEL, random_weights(TINY, 0).params, mesh)(images(3))
np.save(sys.argv[1], np.asarray(found))
"""
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "three.npy"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    one_by_one = [plain(image[None])[0] for image in images(3)]
    np.testing.assert_allclose(np.load(tmp_path / "three.npy"), one_by_one, rtol=1e-4, atol=1e-5)


class Answer:
    """What a device is still computing; fetching it is an event."""

    def __init__(self, images, events):
        self._maps, self._events = np.float32(images[..., 0]), events

    def __array__(self, dtype=None, copy=None):
        self._events.append("fetch")
        return self._maps


def test_the_device_has_the_next_batches_before_a_result_is_fetched(monkeypatch):
    """And never more than are counted for, however slow it is."""
    events = []
    photos = [images(1, 42, 42, seed)[0] for seed in range(12)]

    def start(shown):
        events.append("start")
        return Answer(shown, events)

    label_all(photos, monkeypatch, start, batch=1)
    assert events[: label_run.IN_FLIGHT + 2] == ["start"] * (label_run.IN_FLIGHT + 1) + ["fetch"]
    waiting = np.cumsum([1 if event == "start" else -1 for event in events])
    assert waiting.max() == label_run.IN_FLIGHT + 1 and waiting[-1] == 0


@pytest.mark.parametrize(
    ("size", "labelled"), [((10, 200), True), ((10, 201), False), ((1, 99), 0)]
)
def test_a_strip_of_pixels_gets_no_label(size, labelled):
    record = {"id": b"strip", "image": viz.encode_png(images(1, *size)[0])}
    shard = label_run.ShardInHand("set", None, [record | {"target": b"", "quantity": b""}])
    found = label_run.ready(label_run.Item(shard, 0), Teacher(None, 1, "", 1, 28, True))
    assert (found.image is not None) == bool(labelled) == (not found.reason)


def test_a_map_that_is_not_finite_gives_a_record_that_says_so():
    disparity = np.ones((42, 56), np.float32)
    disparity[3, 4] = np.nan
    record, reason = label_run.encode("a", disparity, (42, 70))
    assert labels.decode_label(record) == {"id": "a", "reason": reason} and "not finite" in reason


@pytest.mark.parametrize(
    ("environment_of", "number"),
    [
        ({"JOB_COMPLETION_INDEX": "5"}, 5),
        ({"SLURM_PROCID": "1", "SLURM_ARRAY_TASK_ID": "3", "SLURM_NTASKS": "2"}, 7),
        ({"SLURM_PROCID": "2"}, 2),
        ({}, 0),
    ],
)
def test_processes_know_their_place(environment_of, number, monkeypatch):
    for name in ("JOB_COMPLETION_INDEX", "SLURM_PROCID", "SLURM_ARRAY_TASK_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_of.items():
        monkeypatch.setenv(name, value)
    assert label_set.process_number() == number


def test_too_little_memory_is_one_sentence():
    with pytest.raises(DavError, match="smaller config.label_batch"), label.troubles_named():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(DavError, match="config.data.workers"), label.troubles_named():
        raise BrokenProcessPool()
    with pytest.raises(RuntimeError, match="else"), label.troubles_named():
        raise RuntimeError("something else")


def test_freed_pages_are_given_back_after_every_shard(monkeypatch, tmp_path):
    shards, given_back = {tmp_path / name: 4 for name in "abc"}, []
    one = label_set.UnlabelledSet("set", tmp_path, "", None, dict(shards), 12, None)

    def run(*_, **__):
        for done, path in enumerate(shards):
            assert len(given_back) == done
            del one.missing[path]
            yield path, 4

    monkeypatch.setattr(label_run, "run", run)
    monkeypatch.setattr(label.memory, "return_freed_pages", lambda: given_back.append(1))
    monkeypatch.setattr(label_set, "survey", lambda sets: None)
    label.label_all(None, [one], None, mock.Mock(), None, [])
    assert len(given_back) == len(shards)
