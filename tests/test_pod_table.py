"""The search for the largest batch of tools/pod_table.py, on chips of made-up memory."""

import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(ROOT / "tools"))

import pod_table
import reproduction


def search(needed_of, limit, fixed, tries):
    """The rows that the search asks for, one after the other."""
    rows = []
    for _ in range(tries):
        if (times := pod_table.next_times(rows)) is None:
            break
        needed = needed_of(times)
        row = {"times": times, "needed_bytes": needed, "fits": needed <= limit}
        rows.append(row | {"limit_bytes": limit, "fixed_bytes": fixed})
    return rows


@given(
    fixed=st.integers(0, 500),
    each=st.integers(1, 400),
    bend=st.floats(0.5, 1.0),
    limit=st.integers(100, 20_000),
)
def test_it_ends_at_the_largest_that_fits(fixed, each, bend, limit):
    """Memory grows with the batch, but less than in proportion where the compiler saves some."""

    def needed_of(times):
        return fixed + int(each * times**bend) + times

    rows = search(needed_of, limit, fixed, tries=200)
    most = max((row["times"] for row in rows if row["fits"]), default=0)
    assert pod_table.next_times(rows) is None
    assert most == 0 or needed_of(most) <= limit
    assert needed_of(most + max(1, most // 20)) > limit
    assert len({row["times"] for row in rows}) == len(rows)


@pytest.mark.parametrize("saved", [0, 0.3])
def test_a_few_cases_are_enough(saved):
    """Also where the compiler saves memory near the limit, up to a third of what is asked for."""

    def needed_of(times):
        asked = 700 + 90 * times
        return asked if asked <= 16_000 else max(16_000, asked * (1 - saved))

    rows = search(needed_of, 16_000, 700, tries=10)
    assert pod_table.next_times(rows) is None
    assert len(rows) <= 8, [row["times"] for row in rows]


def test_the_smallest_batch_keeps_the_proportion_and_covers_the_pod():
    config = pod_table.make_config("student:vits", 256 * 3, 4)
    assert config.batch.to_dict() == {"labelled": 768, "unlabelled": 1536}
    assert config.mesh.fsdp == 4
    assert pod_table.make_config("teacher:v2", 64, 1).batch.to_dict() == {"labelled": 64}


def test_hours_follow_from_operations():
    stages = reproduction.make_stages()
    assert list(stages) == ["teacher:vitl", "labels, one look by vitl", *reproduction.TRAININGS[1:]]
    chips, peak = 64, 459e12
    assert reproduction.hours(3600 * chips * peak, "64 v5p", 0.5) == 2
