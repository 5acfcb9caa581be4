"""Finished results stand on disk as they were."""

import dataclasses

import msgpack
import numpy as np
import pytest
from test_engine import make_model, make_set, whole

from dav.errors import DavError
from dav.evaluation import store
from dav.evaluation.results import SetResult
from dav.evaluation.tables import make_rows, notes, table_text


@pytest.fixture(scope="module")
def result():
    found = make_set(12)
    found[3][0]["valid"][:] = False
    part = whole(found, [make_model(found)])
    return SetResult(
        data="rooms",
        split="test",
        protocol={"align": "lstsq_disparity", "max_depth_m": 80.0},
        images=len(part.scores),
        skipped=tuple(part.skipped.values()),
        figures={"one": {"abs_rel": 0.1, "delta1": 1 / 3}},
        best={model: tuple(k for *_, k in kept) for model, kept in part.best.items()},
        worst={model: tuple(k for *_, k in kept) for model, kept in part.worst.items()},
        samples=tuple(part.samples.values()),
    )


def test_what_is_stored_comes_back(result):
    found = store.unpack(store.pack(result, "key"), "key")
    assert found == result
    np.testing.assert_array_equal(found.worst["one"][0].truth, result.worst["one"][0].truth)
    assert found.samples[0].error["one"].shape == (30, 40, 3)


def test_an_image_that_is_best_and_a_sample_is_stored_once(result):
    held = msgpack.unpackb(store.pack(result, ""))
    assert len(held["kept"]) == result.images == 11


def test_what_was_made_from_something_else_is_not_taken(result):
    assert store.unpack(store.pack(result, "key"), "other") is None


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"", lambda c: b"\x01" + c[1:]])
def test_damage_is_an_error(result, damage):
    with pytest.raises(DavError, match="damaged"):
        store.unpack(damage(store.pack(result, "key")), "key")


def test_rows_and_groups(result):
    other = dataclasses.replace(
        result, data="streets", images=33, figures={"one": {"abs_rel": 0.3, "delta1": 1.0}}
    )
    rows = make_rows([result, other], {"both": ["rooms", "streets"]}, trained_on=["rooms"])
    assert [row["data"] for row in rows] == ["rooms", "streets", "both"]
    assert [row["trained_on"] for row in rows] == [True, False, False]
    assert rows[0]["skipped"] == 1 and rows[2]["images"] == 44
    assert rows[2]["abs_rel"] == pytest.approx((11 * 0.1 + 33 * 0.3) / 44)


def test_the_table_tells_figures_and_what_was_left_out(result):
    results = [dataclasses.replace(result, protocol={"warning": "11 of 654 images"})]
    text = table_text(make_rows(results), results)
    assert "0.1000" in text and "0.3333" in text
    assert notes([result]) == ["rooms: left out, no valid pixel: room/003"]
    assert "rooms: 11 of 654 images" in text
