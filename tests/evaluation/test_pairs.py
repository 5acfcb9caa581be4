"""Pairs of points: rows come first, the closer one of each pair too."""

import numpy as np
import pytest

from dav.evaluation.pairs import accuracies, ordered_rightly, scene_of

DOWN = np.broadcast_to(np.arange(20.0)[:, None], (20, 30))  # nearer towards the bottom
POINTS = np.array([[[15, 2], [3, 28]], [[10, 29], [9, 0]]], np.int32)


def test_points_are_row_and_column():
    """On a ramp from top to bottom both pairs are right; with the axes swapped the answer flips."""
    assert ordered_rightly(DOWN, POINTS).all()
    swapped = POINTS[:, :, ::-1].clip(0, 19)
    np.testing.assert_array_equal(ordered_rightly(DOWN, swapped), [False, True])
    assert not ordered_rightly(-DOWN, POINTS).any()


def test_a_metric_map_is_smaller_where_it_is_closer():
    assert ordered_rightly(20 - DOWN, POINTS, is_metric=True).all()


def test_equal_values_are_not_rightly_ordered():
    flat = np.ones((20, 30))
    assert not ordered_rightly(flat, POINTS).any()
    assert not ordered_rightly(flat, POINTS, is_metric=True).any()


def test_accuracy_is_over_pairs_not_over_scenes():
    right = [("indoor", np.array([True])), ("aerial", np.array([True, False, False]))]
    assert accuracies([*right, ("indoor", np.array([False]))]) == {
        "accuracy": 0.4,
        "accuracy aerial": pytest.approx(1 / 3),
        "accuracy indoor": 0.5,
    }


@pytest.mark.parametrize(
    ("name", "scene"),
    [("images/indoor/a", "indoor"), ("aerial/x/a", "aerial"), ("mine/a", "mine"), ("a", "all")],
)
def test_scene_is_the_folder_of_the_image(name, scene):
    assert scene_of(name) == scene
