"""The report of a training, from results of sets and what the training left in its folder."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dav import report, viz
from dav.errors import DavError
from dav.evaluation.results import SetResult, Shown
from dav.folders import Paths

CONFIG = SimpleNamespace(
    recipe="teacher",
    preset="mini",
    model=SimpleNamespace(size="mini"),
    steps=200,
    batch={"labelled": 8},
    crop_px=(168, 224),
    seed=0,
)
MODELS = {"teacher": 0.1, "ramp": 0.2, "constant": 0.4}


def sample(name, seed, height=40):
    rng = np.random.default_rng(seed)

    def picture():
        return rng.integers(0, 256, (height, 60, 3), np.uint8)

    figures = {model: {"abs_rel": value + seed / 1000} for model, value in MODELS.items()}
    pictures = [{model: picture() for model in MODELS} for _ in range(2)]
    return Shown(name, picture(), picture(), *pictures, figures)


def result(data, count, *, height=40, **protocol):
    figures = {m: {"abs_rel": value, "delta1": 1 - value} for m, value in MODELS.items()}
    samples = tuple(sample(f"{data}/{i} <&>", i, height) for i in range(count))
    words = {"max_depth_m": 10.0, "crop": "none"} | protocol
    return SetResult(data, "heldout", words, count, (), figures, {}, {}, samples)


def pair_result():
    figures = {m: {"accuracy": 1 - value} for m, value in MODELS.items()}
    return SetResult("da2k", "test", {}, 1000, (), figures, {}, {}, (sample("pairs", 9),))


def rows_of(results, seen=("a",)):
    return [
        {"model": m, "data": r.data, "images": r.images, "trained_on": r.data in seen} | figures
        for r in results
        for m, figures in r.figures.items()
    ]


@pytest.fixture
def paths(tmp_path):
    lines = [
        {"step": 10, "kind": "train", "loss": 1.0, "loss_labelled": 0.5, "grad_norm": 2.0},
        {"step": 15, "kind": "other"},
        {"step": 20, "kind": "train", "loss": None, "loss_labelled": None, "grad_norm": 3.0},
        {"step": 30, "kind": "train", "loss_labelled": 0.25, "grad_norm": float("nan")},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    return Paths(tmp_path, tmp_path / "data", tmp_path / "teacher", tmp_path / "labels")


def written(paths, results, config=CONFIG, **options):
    report.write(config, paths, rows_of(results, **options), results)
    return (paths.workdir / "report" / "index.html").read_text()


class Balanced(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass  # as of SVG

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_one_page_with_samples_of_all_sets_in_turns(paths):
    page = written(paths, [result("a", 24), result("b", 24), result("c", 2)])
    assert Balanced(page).open == [] and not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<img ") == report.CASES_SHOWN * 4
    order = re.findall(r'class="row"><b>(\w)/(\d+) &lt;&amp;&gt;</b> AbsRel teacher ([\d.]+)', page)
    assert [data for data, *_ in order[:7]] == list("abcabca") and len(order) == 24
    assert order[4] == ("b", "1", "0.101")


def test_its_table_and_lead_are_the_rows(paths):
    page = written(paths, [result("a", 3), result("b", 2), pair_result()])
    assert (
        "On held-out images of the sources it was trained on, the teacher&#x27;s AbsRel is 0.100: "
        "50% below the ramp&#x27;s 0.200. On b, the teacher&#x27;s AbsRel is 0.100: 50% below the "
        "ramp&#x27;s 0.200. On da2k, the teacher orders 90.0% of pairs rightly, the ramp 80.0%."
    ) in page
    assert page.count('<td class="best">0.100<small>90.0</small>') == 2
    assert '<td class="best">90.0<small>% of pairs</small>' in page
    assert "a<br>trained on, 3 images" in page and "b<br>never seen, 2 images" in page


def test_fine_tuning_is_judged_by_what_it_began_with(paths):
    own = {"finetune": 0.1, "before": 0.125, "ramp": 0.2}
    renamed = dict(zip(MODELS, own, strict=True))

    def rename(by_model):
        return {renamed[model]: value for model, value in by_model.items()}

    def tuned(one, metric):
        samples = tuple(
            dataclasses.replace(
                s, figures=rename(s.figures), aligned=rename(s.aligned), error=rename(s.error)
            )
            for s in one.samples
        )
        figures = {m: {metric: v, "delta1": 0.9} for m, v in own.items()}
        return dataclasses.replace(one, figures=figures, samples=samples)

    config = SimpleNamespace(**{**vars(CONFIG), "recipe": "finetune"})
    results = [tuned(result("a", 2), "abs_rel"), tuned(pair_result(), "accuracy")]
    page = written(paths, results, config=config)
    assert "finetune&#x27;s AbsRel is 0.100: 20% below that before it, 0.125." in page
    assert "the finetune orders 10.0% of pairs rightly, before it was 12.5%." in page
    assert report.BEFORE in page and page.count("<img ") == 2 * 5
    assert report.column_heads(config, report.shown_models(config, results[0].samples)) == [
        *("photograph", "measured", "before", "finetune", "error of the finetune")
    ]


def test_the_protocol_is_what_the_results_say(paths):
    one, other = result("a", 1), result("b", 1, max_depth_m=80.0, crop="garg")
    assert report.protocol([one, one]).endswith("in disparity; depth is clipped at 10 m.")
    assert report.protocol([one, other, pair_result()]).endswith(
        "clipped at 10 m (a), 80 m (b); crop: none (a), garg (b)."
    )
    assert report.protocol([result("a", 1, max_depth_m=None)]).endswith("in disparity.")


def test_curves_leave_out_what_is_not_finite(paths):
    lines = [json.loads(line) for line in (paths.workdir / "metrics.jsonl").open()]
    assert report.curves_of(lines, "loss_") == {"labelled": ((10, 30), (0.5, 0.25))}
    assert report.curves_of(lines, "grad_norm") == {"all": ((10, 20), (2.0, 3.0))}
    assert report.curves_of(lines, "lr_") == {}
    page = written(paths, [result("a", 1)])
    assert re.findall(r'class="title">([^<]*)', page) == [
        "teacher: loss by step",
        "teacher: gradient norm by step",
    ]


def test_the_newest_picture_of_the_training_is_embedded_as_it_is(paths):
    folder = paths.workdir / "pictures"
    folder.mkdir()
    for step in (900, 1000):
        (folder / f"{step}.jpg").write_bytes(viz.encode_jpeg(np.zeros((8, 12, 3), np.uint8)))
    page = written(paths, [result("a", 1)])
    assert "in step 1,000" in page and 'width="12" height="8"' in page
    assert page.count("<img ") == 1 + 4
    (folder / "2000.jpg").write_bytes(b"no picture")
    with pytest.raises(DavError, match="2000.jpg is damaged"):
        written(paths, [result("a", 1)])


def test_the_overview_keeps_every_sets_proportions(paths):
    written(paths, [result("a", 3), result("b", 1, height=20), pair_result()])
    overview = cv2.imread(str(paths.workdir / "report" / "overview.jpg"))
    assert overview.shape == (34 + 40 + 40 + 20, 4 * 60, 3)
