"""The published figures are those of the papers, and agree among themselves."""

import pytest

from dav.data import catalog
from dav.evaluation import protocols, published

DEPTH = tuple(name for name in published.BENCHMARKS if name != "da2k")


@pytest.mark.parametrize("data", published.BENCHMARKS)
def test_benchmarks_are_data_sets_of_the_published_size(data):
    benchmark = published.BENCHMARKS[data]
    counts = catalog.builder_of(data).counts
    if benchmark.is_exact:
        assert counts["test"] == benchmark.images
        assert protocols.protocol_of(data).images == benchmark.images
    assert published.published_for(data)


def test_other_editions_are_data_sets_without_published_rows():
    for name in published.OTHER_EDITIONS:
        assert catalog.can_build(name) and published.published_for(name) == ()
        assert name not in published.BENCHMARKS
    assert published.published_for("folder/own") == ()


@pytest.mark.parametrize(
    "data, model, figures",
    [
        ("kitti", "MiDaS v3.1 BEiT-L", (0.127, 0.850)),
        ("kitti", "Depth Anything V2 ViT-L", (0.074, 0.946)),
        ("nyuv2", "Depth Anything V1 ViT-B", (0.046, 0.979)),
        ("sintel", "Depth Anything V2 ViT-G", (0.506, 0.772)),
        ("ddad", "Depth Anything V1 ViT-S", (0.247, 0.768)),
        ("eth3d", "Depth Anything V2 ViT-S", (0.142, 0.851)),
        ("diode/indoor", "Depth Anything V2 ViT-B", (0.068, 0.950)),
    ],
)
def test_rows_are_those_of_the_papers_tables(data, model, figures):
    (row,) = [r for r in published.published_for(data) if r.model == model and r.is_paper]
    assert (row.figures["abs_rel"], row.figures["delta1"]) == figures
    assert row.source == (published.V2 if "V2" in model else published.V1)
    assert bool(row.remark) == (model.startswith("MiDaS") and data in ("kitti", "nyuv2"))


def test_every_row_names_its_source_and_figures_are_shares():
    for data in published.BENCHMARKS:
        for row in published.published_for(data):
            assert row.source and row.figures
            assert all(0 < value <= 1 for value in row.figures.values())


@pytest.mark.parametrize("data", DEPTH)
def test_whether_it_reproduces_is_what_the_reproductions_say(data):
    rows = published.published_for(data)
    own = {row.model: row.figures["abs_rel"] for row in rows if row.is_paper}
    others = {row.model: row.figures["abs_rel"] for row in rows if not row.is_paper}
    off = [abs(own[model] - value) for model, value in others.items() if model in own]
    if published.BENCHMARKS[data].reproduces:
        assert off and max(off) < 0.0035
    else:
        assert not off or min(off) > 0.01
        assert "Not known to be the same protocol" in published.BENCHMARKS[data].doubt


def test_the_mean_of_pairs_is_weighted_by_their_number_in_each_scene():
    # The scenes' shares of all pairs in per cent, as the paper's section on DA-2K gives them.
    shares = dict(zip(published.SCENES, (20, 17, 15, 10, 16, 9, 6, 7), strict=True))
    rows = [row for row in published.published_for("da2k") if len(row.figures) > 1]
    assert len(rows) == 3
    for row in rows:
        mean = sum(s * row.figures[f"accuracy {scene}"] for scene, s in shares.items()) / 100
        assert row.figures["accuracy"] == pytest.approx(mean, abs=0.004)


def test_a_part_of_a_benchmark_is_not_the_benchmark():
    kitti, pairs = published.BENCHMARKS["kitti"], published.BENCHMARKS["da2k"]
    assert kitti.is_whole(652) and kitti.is_whole(650, left_out=2)
    assert not kitti.is_whole(651) and not kitti.is_whole(697) and not kitti.is_whole(640, 12)
    assert pairs.is_whole(1033) and not pairs.is_whole(100)
