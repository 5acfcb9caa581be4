import itertools
import pickle

import numpy as np
import pytest

from dav.data import pipeline, sources
from dav.data.examples import decode_example


@pytest.fixture(scope="module")
def kinds(sample_root):
    def examples(*names):
        parts = tuple(sources.open_split(sample_root, f"sample/{n}", "train") for n in names)
        return sources.Decoded(sources.Concatenated(parts), decode_example)

    return {"labelled": examples("icl", "tum"), "unlabelled": examples("tum")}


def batches(kinds, **options):
    sizes = {"labelled": 4, "unlabelled": 8}
    return pipeline.make_batches(
        kinds, sizes, seed=3, short_side_px=98, crop_px=(98, 98), **options
    )


def assert_equal(one, other):
    for kind, name in itertools.product(one, ("image", "disparity", "valid")):
        np.testing.assert_array_equal(one[kind][name], other[kind][name])


def at(pipelines, step):
    return {kind: data[step] for kind, data in pipelines.items()}


def test_every_batch_has_its_exact_share_of_each_kind(kinds):
    batch = at(batches(kinds), 5)
    assert batch["labelled"]["image"].shape == (4, 98, 98, 3)
    assert batch["unlabelled"]["image"].shape == (8, 98, 98, 3)
    assert batch["labelled"]["image"].dtype == np.uint8
    assert batch["labelled"]["disparity"].dtype == np.float32
    assert batch["labelled"]["valid"].dtype == bool


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_read_the_batch_of_one(kinds, processes):
    whole = at(batches(kinds), 7)
    parts = [at(batches(kinds, process=p, processes=processes), 7) for p in range(processes)]
    joined = {
        kind: {
            # Element k of process p is element k * processes + p of the global batch.
            name: np.stack([part[kind][name] for part in parts], 1).reshape(whole[kind][name].shape)
            for name in ("image", "disparity", "valid")
        }
        for kind in whole
    }
    assert_equal(joined, whole)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_resumed_run_reads_what_an_undisturbed_one_reads(kinds, threads):
    pipelines = batches(kinds)
    straight = list(pipeline.iterate(pipelines, 0, 6, threads=2))
    resumed = list(pipeline.iterate(batches(kinds), 4, 6, threads=threads))
    for one, other in zip(straight[4:], resumed, strict=True):
        assert_equal(one, other)
    assert_equal(straight[2], at(pipelines, 2))


def test_an_epoch_shows_every_example_once(kinds):
    order = pipeline.shuffled(range(116), kind="labelled", seed=3)
    first = [order[i] for i in range(116)]
    second = [order[i] for i in range(116, 232)]
    assert sorted(first) == sorted(second) == list(range(116))
    assert first != second


def test_the_seed_changes_the_order(kinds):
    other = pipeline.make_batches(
        kinds, {"labelled": 4, "unlabelled": 8}, seed=4, short_side_px=98, crop_px=(98, 98)
    )
    assert (at(other, 0)["labelled"]["image"] != at(batches(kinds), 0)["labelled"]["image"]).any()


def test_a_batch_that_does_not_split_is_refused(kinds):
    with pytest.raises(ValueError, match="3 processes"):
        batches(kinds, process=0, processes=3)


def test_sources_pickle(kinds):
    copy = pickle.loads(pickle.dumps(kinds["labelled"]))
    np.testing.assert_array_equal(copy[115]["image"], kinds["labelled"][115]["image"])
    assert len(copy) == 116


def test_concatenation_keeps_every_border():
    joined = sources.Concatenated(("ab", "", "cde"))
    assert len(joined) == 5 and [joined[i] for i in range(5)] == list("abcde")
    assert [sources.Subset("abcdef", 2, 5)[i] for i in range(3)] == list("cde")
    with pytest.raises(IndexError):
        sources.Subset("abcdef", 2, 5)[3]
