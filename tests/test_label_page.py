"""What is told of a labelling: its page, and its log."""

import re

import label_data
import numpy as np
import pytest

from dav import folders, label_page, label_summary
from dav.data import label_shards, labels, sources
from dav.errors import DavError
from dav.label_run import ShardInHand
from dav.label_teacher import Teacher
from dav.main import parse

TEACHER = Teacher(None, 2, "some device", 1, 56, True)


def make_map(index):
    """A smooth map; constant for image 3, rough for image 5, half zeros for image 7."""
    rows, columns = np.mgrid[:56, :84].astype(np.float32)
    disparity = (rows + columns) / 10 + 1
    if index == 3:
        disparity[:] = 2
    if index == 5:
        disparity += np.random.default_rng(0).normal(0, 9, disparity.shape)
    if index == 7:
        disparity[:28] = 0
    return disparity.astype(np.float32)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """config and paths of a work folder with labels for all shards but one."""
    root = tmp_path_factory.mktemp("page")
    shards = label_data.make(root, 9)
    config, *_ = parse(
        [
            "dav",
            "--config=configs/student.py",
            f"--config.data.root={root / 'data'}",
            "--config.data.unlabelled=('tiny',)",
            f"--config.teacher_weights={root / 'teacher.safetensors'}",
        ]
    )
    paths = folders.make_paths(config, root / "run")
    paths.workdir.mkdir()
    origin = folders.label_origin(config, paths)
    folder = folders.label_folder(paths, "tiny")
    for number, path in enumerate(shards):
        if number == label_data.UNREADABLE:
            label_shards.list_damaged(folder, path.name, "chunk <broken>", me="me")
            continue
        shard = hand(path, number)
        line = label_summary.describe_shard(shard, TEACHER, origin)
        found = [shard.labels[index] for index in range(4)]
        label_shards.commit(folder, path.name, found, line, me="me")
    return config, paths


def hand(path, number):
    """A labelled shard of four images; one has no label if the data set's is damaged."""
    shard = ShardInHand("tiny", path, [None] * 4, seconds=2.0)
    for index in range(4):
        name = f"{4 * number + index:05d}"
        shard.ids[index] = name
        if number in label_data.BROKEN and label_data.BROKEN[number][0] == index:
            shard.labels[index] = labels.encode_missing(name, "torn & lost")
            shard.failed.append({"index": index, "id": name, "reason": "torn & lost"})
            continue
        disparity = make_map(4 * number + index)
        shard.labels[index] = labels.encode_label(name, disparity)
        shard.figures[index] = labels.describe(disparity)
    return shard


def test_it_is_one_file_and_says_what_there_is(labelled):
    config, paths = labelled
    label_page.write(config, paths)
    page = (paths.workdir / "label.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "30 of 36 images are labelled." in page and "some device" in page
    assert "2 images could not be labelled" in page and "1 shard without labels" in page
    assert page.count("torn &amp; lost") == 2 and "chunk &lt;broken&gt;" in page
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells[:3] == ["30", "2", "8/9"] and cells[7] == f"{30 / (8 * 2 * 2):.1f}"
    assert page.count("<figure>") == label_page.SAMPLES + len(picked(labelled))
    assert page.count("<svg") == 2


def picked(labelled):
    return label_page.pick_outliers([label_page.read_set(*labelled, "tiny")])


def test_the_maps_that_stand_out_are_shown_first_of_their_kind(labelled):
    first = {}
    for one, name, index, said in picked(labelled):
        number = 4 * list(one.lines).index(name) + index
        first.setdefault(said.split(" (")[0], number)
        assert number != 3 or said == "constant"
    assert first["constant"] == 3 and first["roughest"] == 5 and first["most zeros"] == 7


def test_figures_of_a_shard():
    figures = [labels.describe(make_map(index)) for index in range(4)]
    found = label_summary.summarise(figures)
    assert found["low"] == 1 and found["constant"] == 1 and found["zeros"] == 0
    assert found["high"] == pytest.approx(14.8, abs=0.1)
    assert label_summary.summarise([])["median"] is None


def without_maps(labelled, images, without):
    """A labelled shard of so many images, the first `without` of which have no finite map."""
    path = sources.split_shards(labelled[1].data, "tiny", "train")[0]
    shard = ShardInHand("tiny", path, [None] * images, not_finite=without)
    for index in reversed(range(images)):
        shard.ids[index] = str(index)
        if index < without:
            shard.failed.append({"index": index, "id": str(index), "reason": "not finite"})
        else:
            shard.figures[index] = labels.describe(make_map(0))
    return shard


def test_a_teacher_whose_maps_are_mostly_not_finite_is_refused(labelled):
    images = label_summary.JUDGED_FROM
    refused = without_maps(labelled, images, images // 2 + 1)
    with pytest.raises(DavError, match=f"6 of the {images} images.*training has failed"):
        label_summary.describe_shard(refused, TEACHER, "origin")
    kept = without_maps(labelled, images, images // 2)
    listed = label_summary.describe_shard(kept, TEACHER, "origin")["failed"]
    assert [failure["index"] for failure in listed] == list(range(images // 2))


@pytest.mark.parametrize("images", [1, label_summary.JUDGED_FROM - 1])
def test_few_images_without_a_map_do_not_stop_all_others(labelled, images):
    shard = without_maps(labelled, images, images)
    assert len(label_summary.describe_shard(shard, TEACHER, "origin")["failed"]) == images


def test_the_log_has_few_lines_and_tells_what_the_whole_set_costs(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(label_summary.time, "monotonic", lambda: now[0])
    options = {"devices": 4, "cost_per_hour": 2.5}
    with label_summary.Teller(1000, 62_300_000, **options) as teller:
        for seconds, left, own in ((0, 1000, 0), (10, 900, 100), (30, 500, 400), (1, 490, 0)):
            now[0] += seconds
            teller.update(left, own)
        teller.update(490, 0, last=True)
        teller.update(490, 0, last=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["500/1000", "510/1000"]
    # 500 images of its own in 40 s, on four devices.
    assert "(all 62,300,000 images: 5,538 device-hours, cost 13,844)" in lines[0]
    assert "12.5 images/s  40 s left" in lines[0]
