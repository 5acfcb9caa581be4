"""The page is made from small data sets that the engine prepares, good and spoilt ones."""

import html
import os
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from dav import inspect as command
from dav import inspect_set
from dav.data import catalog, inspect, prepare, statistics
from dav.data.frames import DEPTH_M, DISPARITY, Builder, Frame, Pairs, Skipped, Target
from dav.errors import ConfigError, DavError


def picture(seed, height=90, width=120):
    """Boxes on a ground: image uint8 [H, W, 3], depth in metres, nearer below."""
    rng = np.random.default_rng(seed)
    depth = np.repeat(np.linspace(9, 2, height)[:, None], width, axis=1).astype(np.float32)
    image = np.full((height, width, 3), 90, np.uint8)
    for _ in range(5):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
        box = np.s_[top : top + rng.integers(15, 40), left : left + rng.integers(15, 40)]
        depth[box] *= 0.6
        image[box] = rng.integers(0, 256, 3)
    return image, depth


def frame_of(seed, quantity=DEPTH_M, change=lambda depth: depth, name=None, **target):
    image, depth = picture(seed)
    values = np.ascontiguousarray(change(depth))
    options = {"valid": np.ones(depth.shape, bool), **target}
    return Frame(name or f"scene/{seed}", image, Target(quantity, values, **options))


def unlabelled(seed, value=None):
    image = picture(seed)[0] if value is None else np.full((90, 120, 3), value, np.uint8)
    return Frame(f"photo{seed}", cv2.imencode(".jpg", image)[1].tobytes())


@pytest.fixture
def prepare_set(monkeypatch):
    """prepare_set(root, name, {split: frames}) makes a data set as a builder would."""

    def make(root, name, splits, **options):
        frames = [frame for split in splits.values() for frame in split]
        starts = np.cumsum([0, *(len(split) for split in splits.values())])
        items = {split: tuple(range(starts[i], starts[i + 1])) for i, split in enumerate(splits)}
        builder = Builder(
            name, "labelled", lambda raw: items, lambda raw, item: iter([frames[item]]), **options
        )
        monkeypatch.setattr(catalog, "builder_of", lambda wanted: builder)
        monkeypatch.setattr(catalog, "can_build", lambda wanted: wanted == name)
        return prepare.prepare(root, name, raw=root)

    return make


def written(folder, **options):
    out = folder / "page.html"
    command.write_page(folder, out, **options)
    return out.read_text()


def text_of(page):
    """What a reader reads, without the pictures."""
    return html.unescape(
        re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))
    )


class Outside(HTMLParser):
    """Collects whatever a page would fetch or run, and the tags left open."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "iframe", "object", "base"):
            self.found.append(tag)
        for key, value in attrs:
            local = (value or "").startswith(("data:image/", "#"))
            if key in ("src", "href", "srcset", "action") and not local:
                self.found.append((tag, key, value))
            if key.startswith("on"):
                self.found.append((tag, key))
        if tag not in ("meta", "img", "br", "line", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_a_page_shows_counts_figures_pictures_and_nothing_from_outside(tmp_path, prepare_set):
    sky = np.zeros((90, 120), bool)
    sky[:9] = True
    names = ["<script>alert(1)</script>", "a&b", 'c" onload="x', "d"]
    train = [frame_of(i, name=names[i] if i < 4 else None, sky=sky) for i in range(12)]
    train.append(Skipped("gone/1", "an ordinal <map>"))
    splits = {"train": train, "test": [frame_of(i + 20) for i in range(3)]}
    prepare_set(tmp_path, "rooms/small", splits, counts={"train": 13, "test": 3})
    page = written(tmp_path, examples=4)
    outside = Outside()
    outside.feed(page)
    assert (outside.found, outside.open) == ([], [])
    assert "url(" not in page and "@import" not in page
    text = text_of(page)
    assert "rooms/small" in text and re.search(r"train\s+12\s+13\s+12\s+90.0%\s+10.0%", text)
    assert re.search(r"test\s+3\s+3\s+3\s+100.0%\s+0.0%", text)
    assert "an ordinal <map>" in text and "gone/1" in text
    assert "90.0% valid · 10.0% sky" in text
    assert 'class="findings"' not in page
    # of each example: image, map, mask and both; 4 examples, 10 odd ones
    assert page.count('src="data:image/jpeg') == 4 * (4 + 10)


SPOILT = {
    "flipped": ({"change": lambda depth: depth[:, ::-1]}, "mirrored left-right"),
    "upside_down": ({"change": lambda depth: depth[::-1]}, "upside down"),
    "millimetres": ({"change": lambda depth: depth * 1000}, "a wrong unit"),
    "inverted": ({"quantity": DISPARITY}, "depth taken for disparity"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_set_is_seen_at_once(tmp_path, prepare_set, spoilt):
    options, said = SPOILT[spoilt]
    prepare_set(tmp_path, spoilt, {"train": [frame_of(seed, **options) for seed in range(8)]})
    page = written(tmp_path)
    assert 'class="findings"' in page and said in text_of(page)
    if spoilt == "millimetres":
        assert re.search(r"[2-9],\d{3} m", text_of(page))
    if spoilt in ("flipped", "upside_down"):  # the mirror that agrees best is marked in the table
        assert 'td class="bad"' in page


def test_several_sets_stand_on_one_page_with_an_overview(tmp_path, prepare_set):
    points = np.array([[[80, 20], [10, 30]], [[70, 100], [5, 60]]], np.int32)
    pairs = [Frame(f"p{i}", picture(i)[0], Pairs(points)) for i in range(3)]
    prepare_set(tmp_path, "points", {"test": pairs})
    photos = {"train": [unlabelled(i) for i in range(5)]}
    prepare_set(tmp_path, "photos", photos)
    deep = prepare_set(tmp_path, "deep/one", {"train": [frame_of(0)]})
    page = written(tmp_path)
    text = text_of(page)
    assert "3 prepared data sets" in text
    assert re.search(r"points\s+3\s+pairs", text) and re.search(r"photos\s+5\s+no target", text)
    assert re.search(r"test\s+3\s+–\s+3\s+100%", text)  # the closer point is the lower one
    odd = page.count("(of the set: ")  # one picture each, as one room has no odd one
    assert page.count('src="data:image/jpeg') == 3 + 5 + 4 + odd
    for part in (deep, deep.parent, deep.parent.parent):
        assert "deep/one" in text_of(written(part))
    assert inspect.find_sets(tmp_path.parent)  # one above ROOT


def test_progress_names_a_set_as_it_is_called(tmp_path, prepare_set, capsys):
    prepare_set(tmp_path, "deep/one", {"train": [frame_of(0)]})
    prepare_set(tmp_path, "plain", {"train": [frame_of(0)]})
    written(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["deep/one", "plain"]


def test_links_are_followed(tmp_path, prepare_set):
    prepare_set(tmp_path / "disk", "one", {"train": [frame_of(0)]})
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "disk" / "one", tmp_path / "root" / "one")
    assert inspect.find_sets(tmp_path / "root") == [tmp_path / "root" / "one" / "1.0.0"]


def test_figures_are_those_of_records_evenly_spaced(tmp_path, prepare_set, monkeypatch):
    read = []
    measure = statistics.measure_map

    def noted(name, *scene):
        read.append(name)
        return measure(name, *scene)

    monkeypatch.setattr(statistics, "measure_map", noted)
    prepare_set(tmp_path, "many", {"train": [frame_of(seed) for seed in range(30)]})
    page = written(tmp_path, most_records=4, examples=2)
    assert sorted(read) == sorted(f"scene/{i}" for i in (0, 10, 19, 29))
    assert "At most 4 records" in text_of(page) and re.search(
        r"train\s+30\s+–\s+4\s", text_of(page)
    )


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (7, 7), (7, 3), (10**9, 4), (3, 1)])
def test_evenly_spaced_indices(count, most):
    chosen = inspect.evenly(count, most)
    assert len(chosen) == min(count, most) == len(set(chosen))
    assert all(0 <= index < count for index in chosen)
    if len(chosen) > 1:
        steps = np.diff(chosen)
        assert chosen[0] == 0 and chosen[-1] == count - 1 and steps.max() - steps.min() <= 1


def test_a_record_comes_back_as_it_is_stored(tmp_path, prepare_set):
    sky = np.zeros((90, 120), bool)
    sky[:5, 7:] = True
    valid = np.ones((90, 120), bool)
    valid[-3:] = False
    frame = frame_of(
        3, valid=valid, sky=sky, change=lambda d: np.round(d * 1000) / 1000, unit=0.001
    )
    folder = prepare_set(tmp_path, "one", {"train": [frame]})
    [(split, one, decoded)] = inspect.look(folder).examples
    assert (split, decoded.id, decoded.quantity) == ("train", "scene/3", DEPTH_M)
    assert decoded.unit == one.unit == pytest.approx(0.001)
    np.testing.assert_array_equal(decoded.image, frame.image)
    np.testing.assert_array_equal(decoded.sky, sky)
    np.testing.assert_array_equal(decoded.measured, valid & ~sky)
    inside = decoded.measured
    np.testing.assert_allclose(decoded.values[inside], frame.target.values[inside], rtol=1e-5)


def test_pictures_lie_as_the_target_does():
    """Near is bright: a near box at the lower left, sky above, the right unmeasured."""
    values = np.full((300, 600), 20, np.float32)
    values[200:, :200] = 1
    measured, sky = np.ones((300, 600), bool), np.zeros((300, 600), bool)
    measured[:, 500:] = False
    sky[:50] = True
    measured &= ~sky
    image = np.zeros((300, 600, 3), np.uint8)
    scene = inspect.Decoded("x", image, DEPTH_M, 0.0, values, measured, sky)
    photo, colored, mask, overlay = inspect_set.pictures(scene)
    assert photo.shape == colored.shape == mask.shape == overlay.shape == (140, 280, 3)
    brightness = colored.mean(-1)
    assert brightness[110:, :80].min() > 150 > 60 > brightness[40:80, :200].max()
    assert (mask[40:, :220] == 255).all() and (mask[40:, 240:] == 0).all()
    assert (mask[:20] == inspect_set.SKY_RGB).all()
    assert (overlay[40:, 240:] == 0).all() and overlay[110:, :80].min(axis=(0, 1)).max() > 60


def test_points_of_lidar_show_in_a_small_picture():
    values, image = np.zeros((600, 2000), np.float32), np.zeros((600, 2000, 3), np.uint8)
    values[300::40, ::40] = 5
    scene = inspect.Decoded(
        "x", image, DEPTH_M, 0.0, values, values > 0, np.zeros_like(values, bool)
    )
    _, _, mask, _ = inspect_set.pictures(scene)
    assert (mask[:40] == 0).all()
    assert (mask[44:, :, 0] > 0).sum() >= 8 * 50  # every point


def test_of_a_pair_the_first_point_is_the_closer_one():
    points = np.array([[[10, 20], [70, 100]]], np.int32)
    image = np.zeros((90, 120, 3), np.uint8)
    drawn = inspect_set.draw_pairs(image, points)
    assert tuple(drawn[10, 20]) == inspect_set.CLOSER_RGB
    assert tuple(drawn[70, 100]) == inspect_set.FARTHER_RGB


def test_damaged_records_are_named_and_the_rest_is_shown(tmp_path, prepare_set):
    folder = prepare_set(
        tmp_path,
        "torn",
        {"train": [frame_of(seed) for seed in range(6)], "val": [frame_of(7)]},
        items_per_shard=2,
    )
    shard = sorted(folder.glob("*-train.array_record-*"))[1]
    content = bytearray(shard.read_bytes())
    content[400:3000] = bytes(2600)
    shard.write_bytes(content)
    with pytest.raises(DavError, match="could not be read; .*page.html says which"):
        written(tmp_path)
    text = text_of((tmp_path / "page.html").read_text())
    assert "cannot be read" in text and re.search(r"val\s+1\s+–\s+1", text)


def test_what_is_no_data_set_of_dav_is_said(tmp_path, prepare_set):
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    foreign = tmp_path / "mnist" / "1.0.0"
    foreign.mkdir(parents=True)
    features = tfds.features.FeaturesDict({"label": np.int64})
    writer = ArrayRecordWriter(
        str(foreign / "mnist-train.array_record-00000-of-00001"), "group_size:1"
    )
    serializer = ExampleSerializer(features.get_serialized_info())
    writer.write(serializer.serialize_example(features.encode_example({"label": 1})))
    writer.close()
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=[1], num_bytes=1, filename_template=None
    )
    tfds.folder_dataset.write_metadata(
        data_dir=str(foreign), features=features, split_infos=[split], check_data=False
    )
    prepare_set(tmp_path, "ours", {"train": [frame_of(0)]})
    with pytest.raises(DavError, match="1 records or sets"):
        written(tmp_path)
    text = text_of((tmp_path / "page.html").read_text())
    assert "has the fields label; those of a set that dav can read" in text and "ours" in text
    with pytest.raises(ConfigError, match="no prepared data set in or below"):
        inspect.find_sets(tmp_path / "mnist" / "nothing")


@pytest.mark.parametrize(
    "report",
    [{}, {"splits": 3}, {"splits": {"a": None}}, {"splits": {"a": {"skipped": 7, "records": 1}}}],
)
def test_other_reports_tell_nothing(report):
    assert inspect_set.left_out(report) == ""


def test_a_report_tells_what_was_left_out():
    skipped = [{"id": f"x{i}", "reason": "torn"} for i in range(9)] + ["odd line"]
    report = {
        "splits": {"train": {"skipped": skipped, "duplicates": 4}, "b": {"duplicates": ["q"]}}
    }
    text = " ".join(text_of(inspect_set.left_out(report)).split())
    assert "train 9 torn x0, x1, x2, x3, x4 train 1 odd line" in text
    assert "train 4 duplicates" in text and "b 1 duplicates" in text


def test_many_reasons_are_cut():
    skipped = [{"id": str(i), "reason": f"r{i}"} for i in range(50)]
    text = " ".join(text_of(inspect_set.left_out({"splits": {"t": {"skipped": skipped}}})).split())
    assert f"t {50 - inspect_set.REASONS_SHOWN} other reasons" in text


def test_the_sample_looks_well(sample_root, tmp_path):
    out = tmp_path / "sample.html"
    said = command.write_page(sample_root, out, most_records=12, examples=2)
    assert said == f"wrote {out}: 4 data sets"
    page = out.read_text()
    assert 'class="findings"' not in page
    assert re.search(r"sample/icl\s+127\s+depth_m", text_of(page))
    assert re.search(r"train\s+110\s+110\s+12\s", text_of(page))


def test_the_command(tmp_path, prepare_set, capsys):
    run = command.main
    prepare_set(tmp_path, "one", {"train": [frame_of(0), frame_of(1)]})
    assert run(["inspect", str(tmp_path), "--examples=1"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path}/inspect.html: 1 data set" in out
    assert run(["inspect", "--help"]) == 0 and "--records=1000" in capsys.readouterr().out
    for arguments, said in (
        ([], ""),
        (["--examples=2"], "one DIR is needed"),
        ([str(tmp_path / "nowhere")], "nowhere is no folder"),
        ([str(tmp_path), "--records=0"], "records"),
        ([str(tmp_path / "one" / "1.0.0" / "parts")], "no prepared data set"),
    ):
        assert run(["inspect", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert run(["inspect", str(tmp_path), f"--out={tmp_path}/one"]) == 1
    assert "choose another --out" in capsys.readouterr().err


def test_it_runs_as_a_module(dav):
    code, out, _ = dav("--help", module="dav.data.inspect")
    assert code == 0 and "python -m dav.data.inspect DIR" in out
