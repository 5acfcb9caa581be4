"""The page of an evaluation, made of results as an evaluation makes them."""

import base64
import dataclasses
import html
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from dav import evaluation_page, evaluation_set
from dav.evaluation import published
from dav.evaluation.results import SHOWN_PX, SetResult, Shown

ODD = "a<b>&\"c' ünï 日本 $x.png"
MODELS = ("small <net>", "runs/student & co")
PROTOCOL = {
    "source": "the usual <rules>",
    "align": "lstsq_disparity",
    "crop": "garg",
    "min_depth_m": 1e-3,
    "max_depth_m": 80.0,
    "short_side_px": 518,
    "weights_sha256": {"small <net>": "ab" * 32},
}


def shown(seed, figures, name=None, size=(60, 80)):
    rng = np.random.default_rng(seed)

    def picture():
        return rng.integers(0, 256, (*size, 3), np.uint8)

    models = figures.keys()
    return Shown(
        name or f"scene/{seed}",
        picture(),
        picture(),
        {model: picture() for model in models},
        {model: picture() for model in models},
        figures,
    )


def result(data="folder/own", images=24, *, models=MODELS, size=(60, 80), split="test", **changed):
    """Per-image AbsRel of model j on image i is known: 0.01 · (i + 1) · (j + 1)."""
    scored = [
        shown(
            i,
            {
                m: {"abs_rel": 0.01 * (i + 1) * (j + 1), "delta1": 1 - 0.01 * (i + j)}
                for j, m in enumerate(models)
            },
            ODD if i == 3 else None,
            size,
        )
        for i in range(12)
    ]
    figures = {
        m: {"abs_rel": 0.0654 * (j + 1), "delta1": 0.9421, "rmse": 4.567, "silog": 17.25}
        for j, m in enumerate(models)
    }
    return dataclasses.replace(
        SetResult(
            data=data,
            split=split,
            protocol=PROTOCOL,
            images=images,
            skipped=(),
            figures=figures,
            best={m: tuple(scored[:10]) for m in models},
            worst={m: tuple(scored[:1:-1]) for m in models},
            samples=tuple(scored),
        ),
        **changed,
    )


def pair_result(images=1000):
    scenes = {f"accuracy {scene}": 0.9 + 0.01 * i for i, scene in enumerate(published.SCENES)}
    figures = {m: {"accuracy": 0.953 - 0.1 * j, **scenes} for j, m in enumerate(MODELS)}
    one = shown(0, {m: {"accuracy": 0.5} for m in MODELS}, "indoor/a")
    groups = {m: (one,) for m in MODELS}
    return SetResult("da2k", "test", {}, images, (), figures, groups, groups, (one,))


class Page(HTMLParser):
    """Collects whatever a page would fetch or run, the tags left open, and the rows of tables."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.rows, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "iframe", "object", "base"):
            self.found.append(tag)
        for key, value in attrs:
            if key in ("src", "href") and not (value or "").startswith(("data:image/", "#")):
                self.found.append((tag, key, value))
            if key.startswith("on"):
                self.found.append((tag, key))
            if key == "id":
                self.ids.append(value)
        if tag == "tr":
            self.rows.append("")
        if tag not in ("meta", "img", "br", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "tr" in self.open:
            self.rows[-1] += f" {data}"


def written(tmp_path, results, title="Title", **options):
    evaluation_page.write_page(tmp_path / "page.html", title, results, **options)
    return (tmp_path / "page.html").read_text()


def text_of(page):
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


def test_a_page_is_whole_well_formed_and_escapes_what_it_shows(tmp_path):
    skipped = ((ODD, "no valid <pixel>"),)
    results = [result(skipped=skipped), result("kitti", 652), pair_result()]
    page = written(tmp_path, results, title=ODD, notes=["note <1>"])
    parsed = Page(page)
    assert parsed.found == [] and parsed.open == []
    assert "url(" not in page and "@import" not in page and "<b>&" not in page
    assert parsed.ids == ["set0", "set1", "set2"] and all(f'"#{i}"' in page for i in parsed.ids)
    text = text_of(page)
    for words in (ODD, "no valid <pixel>", "note <1>", "the usual <rules>", *MODELS):
        assert words in text
    assert f'alt="{html.escape(ODD)}"' in page
    # four pictures of each model's best and worst
    assert page.count('src="data:image/jpeg') == 4 * 2 * (2 * (10 + 10) + 2)


def test_every_figure_is_on_the_page_and_the_best_stands_out(tmp_path):
    page = written(tmp_path, [result()])
    rows = Page(page).rows
    assert next(row.split() for row in rows if MODELS[0] in row)[2:] == ["0.065", "94.2"]
    for figures in ("0.065 94.2 4.567 17.250", "0.131 94.2 4.567 17.250"):
        assert any(figures in " ".join(row.split()) for row in rows), figures
    assert re.findall(r'class="best">([\d.]+)', page) == ["0.065"] * 3
    assert "small <net> is the best: AbsRel 0.065 on folder/own." in text_of(page)


def test_the_lead_names_whose_the_best_figures_are(tmp_path):
    turned = {MODELS[1]: {"abs_rel": 0.02}, MODELS[0]: {"abs_rel": 0.3}}
    lead = evaluation_page.lead
    assert lead([result(), result("kitti"), pair_result()]) == (
        "small <net> is the best on every set: AbsRel 0.065 on folder/own, 0.065 on kitti, "
        "pairs in order 95.3 % on da2k."
    )
    assert lead([result(), result("kitti", figures=turned)]) == (
        "The best of each set: AbsRel 0.065 on folder/own (small <net>), 0.020 on kitti "
        "(runs/student & co)."
    )
    assert lead([result(models=MODELS[:1])]) == "small <net>: AbsRel 0.065 on folder/own."


def test_a_metric_that_it_does_not_know_is_shown_too(tmp_path):
    figures = {MODELS[0]: {"abs_rel": 0.1, "delta1": float("nan"), "another_metric": 12345.6}}
    page = written(tmp_path, [result(figures=figures)])
    assert "another metric" in page and "12,346" in page and ">–<" in page


def test_best_and_worst_are_marked_in_order_with_their_own_figures(tmp_path):
    page = written(tmp_path, [result()])
    parts = re.split(r"<h4>(Best|Worst)</h4>", page)
    assert parts[1::2] == ["Best", "Worst"] * 2
    for part, model, order in zip(
        parts[2::2], (0, 0, 1, 1), (range(10), range(11, 1, -1)) * 2, strict=True
    ):
        found = re.findall(r"<p>(\d+)\. <b>(.*?)</b> AbsRel ([\d.]+) · δ1 ([\d.]+) %", part)
        for place, (i, line) in enumerate(zip(order, found, strict=True), 1):
            name = ODD if i == 3 else f"scene/{i}"
            abs_rel, delta1 = 0.01 * (i + 1) * (model + 1), 100 - (i + model)
            assert line == (str(place), html.escape(name), f"{abs_rel:.3f}", f"{delta1:.1f}")


@pytest.mark.parametrize("images, best, worst", [(1, 1, 0), (5, 3, 2), (19, 10, 9), (20, 10, 10)])
def test_of_a_small_set_each_image_is_shown_once(tmp_path, images, best, worst):
    page = written(tmp_path, [result(images=images, models=MODELS[:1])])
    _, _, *parts = re.split(r"<h4>(Best|Worst)</h4>", page)
    counts = [part.count('class="case"') for part in parts[::2]]
    assert counts == [count for count in (best, worst) if count]


def test_a_whole_benchmark_stands_beside_the_published_rows(tmp_path):
    rows = Page(written(tmp_path, [result("kitti", 652)])).rows
    flat = [" ".join(row.split()) for row in rows]
    assert "Depth Anything V2 ViT-S 0.078 93.6" in flat
    assert f"Published: {published.V2}" in flat and f"Published: {published.V1}" in flat
    assert f"Not the paper's own: {published.REPRODUCTION}" in flat
    assert "Depth Anything V2 ViT-S 0.077 –" in flat
    assert any(published.SEEN in row for row in flat)
    # The overview has the papers' figures alone.
    start = flat.index("published")
    overview = flat[start : next(i for i, row in enumerate(flat) if row.startswith("AbsRel δ1"))]
    assert len(overview) == 1 + len(published.ZERO_SHOT) and "MiDaS v3.1 BEiT-L 0.127* 85.0" in flat


@pytest.mark.parametrize("data, images", [("sintel", 1064), ("eth3d", 454), ("ddad", 3950)])
def test_what_nobody_reproduces_is_marked_so(tmp_path, data, images):
    protocol = {"align": "lstsq_disparity"}
    page = written(tmp_path, [result(data, images, protocol=protocol)])
    text = text_of(page)
    assert f"{data} †" in text and "† not known to be the protocol of the published" in text
    assert "Not known to be the same protocol" in text and published.V1 in text


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"images": 8}, "over 652 images of KITTI, these over 8 of the test split"),
        ({"split": "train"}, "over 652 images of KITTI, these over 652 of the train split"),
        ({"protocol": PROTOCOL | {"crop": "none"}}, "here crop none"),
        ({"protocol": PROTOCOL | {"max_depth_m": 50.0}}, "here max depth (m) 50."),
        ({"protocol": PROTOCOL | {"align": {"a": "none", "b": "lstsq_disparity"}}}, "align none"),
        ({"protocol": PROTOCOL | {"short_side_px": 168}}, "here short side (px) 168."),
        ({"data": "nyuv2/filled", "images": 654}, "they agree with raw depth"),
        ({"images": 600, "skipped": (("x", "y"),) * 52}, "these over 600 of the test split, 52"),
    ],
)
def test_what_is_not_the_benchmark_is_not_compared(tmp_path, changed, said):
    one = result("kitti", 652)
    one = dataclasses.replace(one, **changed)
    page = written(tmp_path, [one])
    text = text_of(page)
    assert "Not comparable with published figures" in text and said in text
    assert "‡ not comparable with published figures" in text
    assert "arXiv" not in text and 'class="published"' not in page


def test_a_set_of_ones_own_says_nothing_of_published_figures(tmp_path):
    text = text_of(written(tmp_path, [result()]))
    assert "ublished" not in text and "†" not in text and "‡" not in text


def test_pairs_have_a_table_by_scene_with_the_published_one(tmp_path):
    rows = [" ".join(row.split()) for row in Page(written(tmp_path, [pair_result()])).rows]
    scenes = "90.0 91.0 92.0 93.0 94.0 95.0 96.0 97.0"
    assert f"small <net> 95.3 {scenes}" in rows and f"runs/student & co 85.3 {scenes}" in rows
    assert "Depth Anything V2 ViT-S 95.3 92.9 93.0 98.4 94.4 95.7 96.4 99.2 96.6" in rows
    assert "Depth Anything V2 ViT-G 97.4" + " –" * 8 in rows


def test_pairs_seen_at_another_size_are_not_compared(tmp_path):
    one = dataclasses.replace(pair_result(), protocol={"short_side_px": 1036})
    page = written(tmp_path, [one])
    assert "here short side (px) 1036." in text_of(page)
    assert 'class="published"' not in page


def test_a_warning_and_the_protocol_are_said_but_checksums_folded(tmp_path):
    page = written(tmp_path, [result(protocol=PROTOCOL | {"warning": "half <of> it"})])
    assert '<p class="warning">half &lt;of&gt; it</p>' in page and "<dt>warning" not in page
    assert "<dt>max depth (m)</dt><dd>80</dd>" in page
    assert page.index("<summary>Checksums") < page.index("ab" * 32)


def test_many_skipped_images_are_counted_by_reason_and_few_named(tmp_path):
    skipped = [(f"n{i:04}", "no valid pixel") for i in range(3000)] + [("odd", "outside")]
    text = text_of(written(tmp_path, [result(skipped=tuple(skipped))]))
    assert "3,000: no valid pixel: n0000, n0001" in text and "and 2,980 more" in text
    assert "1: outside: odd" in text and "n2999" not in text


def test_the_size_of_a_page_is_bounded(tmp_path):
    """Noise is what JPEG is worst at; a page shows each picture no larger than it is drawn."""
    page = written(tmp_path, [result(models=MODELS[:1], size=(360, SHOWN_PX))])
    assert len(page) < 20 * 4 * 110_000
    widths = {int(width) for width in re.findall(r'width="(\d+)"', page)}
    assert max(widths) == evaluation_set.PICTURE_PX


def test_each_models_pictures_are_its_own(tmp_path):
    one = result(size=(20, 30))
    flat = {m: np.full((20, 30, 3), 40 + 150 * j, np.uint8) for j, m in enumerate(MODELS)}
    best = {m: (dataclasses.replace(one.best[m][0], aligned=flat),) for m in MODELS}
    page = written(tmp_path, [dataclasses.replace(one, best=best, worst={})])
    pictures = [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    ]
    assert len(pictures) == 8
    for model, picture in enumerate((pictures[2], pictures[6])):
        assert np.abs(picture.astype(int) - (40 + 150 * model)).max() <= 3
