import itertools
import pickle
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav.data import mixture
from dav.errors import ConfigError, DavError

SEEDS = st.integers(0, 2**31)


def parts(*counts):
    """Sources whose records say where they stand: (part, index)."""
    return [[(part, i) for i in range(count)] for part, count in enumerate(counts)]


def first(order, count, start=0):
    return [order[i] for i in range(start, start + count)]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), SEEDS)
@settings(deadline=None)
def test_concatenated_sets_show_every_record_once_an_epoch(counts, seed):
    order = mixture.endless(parts(*counts), kind="labelled", seed=seed)
    every = list(itertools.chain(*parts(*counts)))
    for epoch in range(3):
        assert sorted(first(order, len(every), epoch * len(every))) == every


@pytest.mark.parametrize("length", [mixture.FEW - 1, mixture.FEW, 70_001])
def test_short_and_long_epochs_are_permutations_and_differ(length):
    epochs = [
        [mixture.shuffled_place(i, length, 5) for i in range(e * length, (e + 1) * length)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(length))
    assert sum(a == b for a, b in zip(*epochs, strict=True)) < 20


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=4),
    SEEDS,
    st.integers(0, 5),
)
@settings(deadline=None)
def test_weights_are_exact_in_every_period_and_parts_keep_their_own_epochs(sets, seed, period):
    counts, weights = zip(*sets, strict=True)
    order = mixture.endless(parts(*counts), weights, kind="unlabelled", seed=seed)
    shares = mixture.whole_shares(weights)
    start = period * sum(shares)
    drawn = Counter(part for part, _ in first(order, sum(shares), start))
    assert [drawn[part] for part in range(len(sets))] == list(shares)
    # After any number of periods no record of a part has been seen twice more than another.
    times = Counter(first(order, (period + 1) * sum(shares)))
    for part in parts(*counts):
        seen = [times[record] for record in part]
        assert max(seen) - min(seen) <= 1


def test_turns_are_shuffled_so_that_no_process_sees_one_set_alone():
    order = mixture.endless(parts(50, 50), (1, 1), kind="labelled", seed=0)
    every_other = {part for part, _ in (order[i] for i in range(0, 40, 2))}
    assert every_other == {0, 1}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((0.3, 0.7), (3, 7)), ((2, 4), (1, 2)), ((8.2, 4.1, 13.1), (82, 41, 131)), ((5,), (1,))],
)
def test_weights_are_taken_as_they_are_written(weights, shares):
    assert mixture.whole_shares(weights) == shares


@pytest.mark.parametrize("weights", [(1, 0), (1, -2), (1, "many"), (1, float("nan")), (1e-9, 1)])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(ConfigError, match="weights"):
        mixture.whole_shares(weights)


@pytest.mark.parametrize("weights", [(), (1, 1)])
def test_an_empty_set_is_refused(weights):
    with pytest.raises(DavError, match="labelled data set 2 has no records"):
        mixture.endless(parts(3, 0), weights, kind="labelled", seed=0)


def test_seeds_and_kinds_have_orders_of_their_own():
    orders = [
        first(mixture.endless(parts(100), kind=kind, seed=seed), 100)
        for kind in ("labelled", "unlabelled")
        for seed in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("weights", [(), (1, 2)])
def test_orders_pickle(weights):
    order = mixture.endless(parts(9, 5), weights, kind="labelled", seed=3)
    assert first(pickle.loads(pickle.dumps(order)), 40) == first(order, 40)
