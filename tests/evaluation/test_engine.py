"""A whole set: means, what is left out, what is kept, in chunks and in shares."""

import dataclasses

import numpy as np
import pytest
from scenes import random_scene

from dav.errors import DavError
from dav.evaluation import engine
from dav.evaluation.engine import Model, look, mean_figures, merge, spread
from dav.evaluation.results import EXTREMES, SAMPLES, SHOWN_PX
from dav.evaluation.scoring import Rules

RULES = Rules(max_depth_m=80.0, min_depth_m=1e-3, crop="none")


def make_set(count, **scene):
    """Examples with depth whose prediction stands in their own image's place: by index."""
    found = {}
    for index in range(count):
        prediction, depth_m, valid = random_scene(index, **scene)
        image = np.full((*depth_m.shape, 3), index % 256, np.uint8)
        example = {"id": f"room/{index:03d}", "image": image, "depth": depth_m, "valid": valid}
        found[index] = example, prediction
    return found


def make_model(found, name="one", change=lambda x: x, seen=None, **options):
    def predict_each(items):
        items = list(items)
        if seen is not None:
            seen.append(len(items))
        for key, image in reversed(items):  # in any order
            assert image is found[key][0]["image"]
            yield key, change(found[key][1])

    return Model(name, predict_each, **options)


def read(found):
    return lambda indices: ((index, found[index][0]) for index in indices)


def whole(found, models, shares=1, rules=RULES):
    parts = [look(read(found), len(found), models, rules, share=(i, shares)) for i in range(shares)]
    return merge(parts, models)


@pytest.fixture(scope="module")
def thirty():
    return make_set(30)


def test_the_mean_is_over_images_not_over_pixels():
    found = make_set(2)
    found[1][0]["valid"][:25] = False  # few pixels in one, many in the other
    part = whole(found, [make_model(found)])
    each = [part.scores[i]["one"]["abs_rel"] for i in (0, 1)]
    mean = mean_figures(part, [make_model(found)])["one"]["abs_rel"]
    assert mean == pytest.approx(np.mean(each), rel=1e-12)
    pixels = [found[i][0]["valid"].sum() for i in (0, 1)]
    assert abs(mean - np.average(each, weights=pixels)) > 1e-3


@pytest.mark.parametrize("shares", [2, 3, 7])
def test_shares_of_several_processes_make_the_same_whole(thirty, shares):
    models = [make_model(thirty), make_model(thirty, "worse", lambda x: x**2)]
    one, several = whole(thirty, models), whole(thirty, models, shares)
    assert list(one.scores) == list(several.scores) == list(range(30))
    assert one.scores == several.scores and one.ids == several.ids
    assert mean_figures(one, models) == mean_figures(several, models)
    for name in ("best", "worst"):
        assert getattr(one, name) == getattr(several, name)
    assert one.samples == several.samples


def test_chunks_change_nothing(thirty, monkeypatch):
    one = whole(thirty, [make_model(thirty)])
    seen = []
    monkeypatch.setattr(engine, "CHUNK_IMAGES", 4)
    several = whole(thirty, [make_model(thirty, seen=seen)])
    assert seen == [4] * 7 + [2]
    assert one == several


def test_a_chunk_holds_few_large_images(thirty, monkeypatch):
    monkeypatch.setattr(engine, "CHUNK_PIXELS", 2 * 30 * 40)
    seen = []
    whole(thirty, [make_model(thirty, seen=seen)])
    assert seen == [2] * 15


def test_large_images_are_scored_one_at_a_time_to_the_same_end(thirty, monkeypatch):
    one = whole(thirty, [make_model(thirty)])
    monkeypatch.setattr(engine, "ALONE_PIXELS", 1000)
    monkeypatch.setattr(engine, "in_threads", None)
    assert whole(thirty, [make_model(thirty)]) == one


def test_best_and_worst_are_those_of_the_smallest_and_largest_error(thirty):
    part = whole(thirty, [make_model(thirty)])
    order = sorted(range(30), key=lambda index: part.scores[index]["one"]["abs_rel"])
    names = [part.ids[index] for index in order]
    assert [kept.id for *_, kept in part.best["one"]] == names[:EXTREMES]
    assert [kept.id for *_, kept in part.worst["one"]] == names[: -EXTREMES - 1 : -1]
    assert list(part.samples) == spread(30, SAMPLES) and len(part.samples) == SAMPLES


def test_images_without_a_pixel_that_counts_are_told_and_left_out(thirty):
    """Depths beyond the cap everywhere: no NaN, and nothing of it in the mean."""
    far = make_set(3)
    example = far[1][0]
    far[1] = example | {"depth": np.full_like(example["depth"], 500)}, far[1][1]
    model = make_model(far)
    part = whole(far, [model])
    assert list(part.scores) == [0, 2] and list(part.ids) == [0, 1, 2]
    ((name, reason),) = part.skipped.values()
    assert name == "room/001" and "500" in reason
    expected = np.mean([part.scores[i]["one"]["abs_rel"] for i in (0, 2)])
    assert mean_figures(part, [model])["one"]["abs_rel"] == expected


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_names_weights_and_image(thirty, junk):
    def spoil(map_):
        map_ = map_.copy()
        map_[3, 4] = junk
        return map_

    with pytest.raises(DavError, match=r"of broken for room/0\d\d is not finite in 1 of 1200"):
        whole(thirty, [make_model(thirty), make_model(thirty, "broken", spoil)])


def test_pictures_are_small_and_there_for_every_model():
    found = make_set(1, shape=(600, 850))
    models = [
        make_model(found),
        make_model(found, "metric", lambda x: 7 / x, how="none", is_metric=True),
    ]
    (kept,) = whole(found, models).samples.values()
    assert set(kept.aligned) == set(kept.error) == set(kept.figures) == {"one", "metric"}
    pictures = [kept.image, kept.truth, *kept.aligned.values(), *kept.error.values()]
    assert {picture.shape for picture in pictures} == {(300, 425, 3)}
    assert max(kept.image.shape) <= SHOWN_PX and kept.image.dtype == np.uint8


def test_a_metric_model_needs_no_alignment(thirty):
    perfect = Model("m", lambda items: ((k, thirty[k][0]["depth"]) for k, _ in items), "none", True)
    part = whole(thirty, [perfect])
    assert mean_figures(part, [perfect])["m"]["rmse"] == 0


def test_pairs_are_counted_one_by_one():
    """Three images of two scenes, one of them without pairs."""
    map_ = np.broadcast_to(np.arange(20.0, dtype=np.float32)[:, None], (20, 30))
    points = [[[[9, 0], [1, 0]]], [[[9, 0], [1, 0]], [[1, 0], [9, 0]], [[2, 5], [8, 5]]], []]
    found = {}
    for index, (scene, pairs) in enumerate(zip("aab", points, strict=True)):
        pairs = np.array(pairs, np.int32).reshape(-1, 2, 2)
        image = np.zeros((20, 30, 3), np.uint8)
        found[index] = {"id": f"{scene}/{index}", "image": image, "pairs": pairs}, map_
    models = [make_model(found)]
    part = whole(found, models, shares=2)
    assert mean_figures(part, models) == {"one": {"accuracy": 0.5, "accuracy a": 0.5}}
    assert list(part.skipped.values()) == [("b/2", "no pair of points")]
    assert [kept.id for *_, kept in part.best["one"]] == ["a/0", "a/1"]
    assert [kept.id for *_, kept in part.worst["one"]] == ["a/1", "a/0"]


@pytest.mark.parametrize(("count", "most"), [(1, 24), (24, 24), (1000, 24), (5, 2)])
def test_spread_is_even_and_has_both_ends(count, most):
    found = spread(count, most)
    assert len(found) == min(count, most) and found[0] == 0 and found[-1] == count - 1
    assert max(np.diff(found), default=1) - min(np.diff(found), default=1) <= 1


def test_with_the_switch_abs_rel_in_disparity_is_there(thirty):
    rules = dataclasses.replace(RULES, disparity=True)
    found = mean_figures(whole(thirty, [make_model(thirty)], rules=rules), [make_model(thirty)])
    assert found["one"]["abs_rel_disparity"] != found["one"]["abs_rel"]
