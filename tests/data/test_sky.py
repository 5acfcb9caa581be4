"""The segmenter is a small SegFormer with random weights, or one whose scores are set by hand."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dav import sky as command
from dav.data import catalog, shards, sky
from dav.data.frames import DEPTH_M, Builder, Frame, Skipped, Target
from dav.errors import ConfigError, DavError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
SMALL = {"num_encoder_blocks": 4, "depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32]}
SMALL |= {"num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16}


def save_model(folder, names=("wall", "sky", "floor")):
    torch.manual_seed(1)
    labels = dict(enumerate(names))
    ids = {name: i for i, name in labels.items()}
    config = transformers.SegformerConfig(**SMALL, id2label=labels, label2id=ids)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """PyTorch's threads wait for each other at every small layer, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("segformer"))


def blue_is_sky(pixel_values):
    """Class 1 where blue exceeds red, at a quarter of the resolution as SegFormer's scores are."""
    blue = (pixel_values[:, 2] - pixel_values[:, 0])[:, ::4, ::4]
    zero = torch.zeros_like(blue)
    return SimpleNamespace(logits=torch.stack([zero, blue, zero - 9], dim=1))


BY_COLOR = sky.Segmenter(blue_is_sky, sky=1, device="cpu")


def corner_image(height, width):
    """Red, but for a blue rectangle at the top left: a third of the height, half of the width."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 200
    image[: height // 3, : width // 2] = (0, 0, 200)
    return image


def jpeg(image):
    return cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()


def turned(content):
    """A JPEG with EXIF orientation 6: to be turned clockwise to stand upright."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]


def depth(height, width):
    return Target(DEPTH_M, np.ones((height, width), np.float32), np.ones((height, width), bool))


def make_builder(frames):
    """A data set of given frames, one a work item; an error among them is raised."""

    def read(raw, item):
        if isinstance(frames[item], Exception):
            raise frames[item]
        yield frames[item]

    return Builder("mine", "labelled", lambda raw: {"train": tuple(range(len(frames)))}, read)


def write(builder, out, segmenter=BY_COLOR, *, size_px=64, batch_size=2, settings=None):
    """Runs the engine; returns its tally and what it noted."""
    tally, notes = sky.Tally(), []
    items = builder.plan(None)["train"]
    sky.write_masks(
        sky.missing_frames(builder, None, items, out, tally, notes.append),
        *(out, segmenter, settings or {"model": "m"}),
        batch_size=batch_size,
        short_side_px=size_px,
        tally=tally,
        tell=lambda: None,
        note=notes.append,
    )
    return tally, notes


def read_mask(path):
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8 and mask.ndim == 2 and set(np.unique(mask)) <= {0, 255}
    return mask > 0


def test_a_mask_lies_where_the_sky_is(tmp_path):
    frames = [
        Frame("a/wide", jpeg(corner_image(120, 301)), depth(120, 301)),
        Frame("a/high", corner_image(310, 97)),
        Frame("b", jpeg(corner_image(200, 200)), depth(200, 200)),
    ]
    tally, notes = write(make_builder(frames), tmp_path)
    assert (tally.made, tally.items, notes) == (3, 3, [])
    for name, (height, width) in {"a/wide": (120, 301), "a/high": (310, 97)}.items():
        mask = read_mask(tmp_path / f"{name}.png")
        expected = np.zeros((height, width), bool)
        expected[: height // 3, : width // 2] = True
        assert mask.shape == (height, width)
        assert (mask != expected).mean() < 0.04  # a border of a few pixels
        assert mask[:20, :30].all() and not mask[-20:].any() and not mask[:, -30:].any()


def test_a_turned_image_gives_an_upright_mask_as_prepare_stores_it(tmp_path):
    content = turned(jpeg(corner_image(120, 300)))
    frames = [
        Frame("upright", content, depth(300, 120)),
        Frame("lying", content, depth(120, 300)),  # the target says that it has no orientation
    ]
    write(make_builder(frames), tmp_path)
    upright, lying = (read_mask(tmp_path / f"{name}.png") for name in ("upright", "lying"))
    assert upright.shape == (300, 120) and lying.shape == (120, 300)
    assert upright[:100, 90:].all() and not upright[:, :70].any()  # the top left is top right now
    assert lying[:30, :140].all() and not lying[50:].any()


def test_prepare_takes_the_masks(tmp_path):
    frame = Frame("room/1", jpeg(corner_image(90, 120)), depth(90, 120))
    builder = make_builder([frame])
    write(builder, tmp_path / "masks")
    options = shards.Options(sky=str(tmp_path / "masks"))
    shard = shards.Shard(builder, None, tmp_path, "train", 0, 1, (0,), options)
    target = shards._with_sky(frame.target, str(tmp_path / "masks"), frame.id)
    assert target.sky[:20, :50].all() and not target.sky[-30:].any()
    shards.build(shard)
    assert shards.image_count(shard) == 1


def test_undecodable_images_are_named_and_left_out(tmp_path):
    good = Frame("good", corner_image(64, 64))
    frames = [
        Frame("torn", jpeg(corner_image(64, 64))[:200]),
        DavError("archive 7 is damaged"),
        Skipped("ordinal", "not measured"),
        good,
    ]
    tally, notes = write(make_builder(frames), tmp_path)
    assert (tally.made, tally.broken, tally.items) == (1, 2, 4)
    assert any("torn" in note for note in notes) and any("archive 7" in note for note in notes)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["good.png"]


def test_what_is_there_is_not_made_again(tmp_path):
    builder = make_builder([Frame(f"{i}", corner_image(64, 64 + i)) for i in range(5)])
    write(builder, tmp_path)
    (tmp_path / "3.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    tally, _ = write(builder, tmp_path)
    assert (tally.made, tally.already) == (1, 4)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert (tmp_path / "3.png").exists()


def test_masks_of_another_model_are_not_mixed(tmp_path):
    builder = make_builder([Frame("a", corner_image(64, 64))])
    write(builder, tmp_path, settings={"model": "one", "size_px": 64})
    with pytest.raises(ConfigError, match="another model \\(one\\)"):
        write(builder, tmp_path, settings={"model": "two", "size_px": 64})


def test_a_batch_of_many_shapes_gives_each_image_its_own_mask(tmp_path):
    rng = np.random.default_rng(0)
    frames, expected = [], {}
    for index in range(100):
        height, width = rng.integers(64, 400, 2)
        is_sky = bool(rng.random() < 0.5)
        color = (0, 0, 200) if is_sky else (200, 0, 0)
        frames.append(Frame(f"{index}", np.full((height, width, 3), color, np.uint8)))
        expected[f"{index}"] = is_sky
    write(make_builder(frames), tmp_path, size_px=32, batch_size=4)
    for name, is_sky in expected.items():
        assert read_mask(tmp_path / f"{name}.png").mean() == is_sky


def test_batches_have_one_shape_and_hold_few():
    drawn = 0

    def photos():
        nonlocal drawn
        for index in range(1000):
            drawn += 1
            yield sky.Photo(str(index), (1, 1), np.zeros((index % 90, 1, 3), np.uint8))

    seen = 0
    for batch in sky.batches(photos(), 16):
        assert len({photo.pixels.shape for photo in batch}) == 1 and len(batch) <= 16
        seen += len(batch)
        assert drawn - seen <= sky.HELD
    assert seen == 1000


def test_the_margin_is_above_zero_where_sky_is_the_first_choice(model):
    segmenter = sky.load_segmenter(model, "cpu")
    images = np.random.default_rng(2).integers(0, 256, (2, 64, 96, 3), np.uint8)
    margin = sky.sky_margin(segmenter, images)
    pixels = (images / 255 - sky.MEAN) / sky.STD
    with torch.no_grad():
        values = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()
        first = segmenter.network(pixel_values=values).logits.argmax(1).numpy()
    assert segmenter.sky == 1 and margin.shape == (2, 16, 24)
    assert 0 < (first == 1).mean() < 1  # else this shows nothing
    np.testing.assert_array_equal(margin > 0, first == 1)


@pytest.mark.parametrize(
    ("names", "match"), [(("wall", "floor"), "no class named sky"), (("Sky ", "a"), None)]
)
def test_the_class_is_found_by_its_name(tmp_path, names, match):
    folder = save_model(tmp_path, names)
    if match is None:
        assert sky.load_segmenter(folder, "cpu").sky == 0
        return
    with pytest.raises(ConfigError, match=match):
        sky.load_segmenter(folder, "cpu")


def test_what_is_no_whole_segformer_is_refused(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match="bert, not segformer"):
        sky.load_segmenter(str(tmp_path / "bert"), "cpu")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        sky.load_segmenter(str(tmp_path / "nothing"), "cpu")
    config = transformers.SegformerConfig(**SMALL, id2label={0: "sky"}, label2id={"sky": 0})
    transformers.SegformerModel(config).save_pretrained(tmp_path / "headless")
    with pytest.raises(ConfigError, match="lacks weights"):
        sky.load_segmenter(str(tmp_path / "headless"), "cpu")


def photographs():
    builder = catalog.builder_of("sample/photos")
    for item in builder.plan(None)["train"]:
        yield from builder.read(None, item)


def test_a_killed_run_continues_to_the_same_masks(tmp_path, model, environment, capsys):
    def arguments(out):
        options = ["--size_px=64", "--batch_size=1", "--device=cpu"]
        return ["sample/photos", f"--model={model}", f"--out={out}", *options]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command_line = [sys.executable, "-m", "dav.data.sky", *arguments(killed)]
    process = subprocess.Popen(command_line, cwd=ROOT, env={**environment, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 60
    while len(list(killed.rglob("*.png"))) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*.png")}
    assert 5 <= len(before) < 52
    images = {frame.id: frame.image for frame in photographs()}
    for path in before:
        image = cv2.imdecode(np.frombuffer(images[f"photos/{path.stem}"], np.uint8), 1)
        assert read_mask(path).shape == image.shape[:2]
    assert command.main(["sky", *arguments(killed)]) == 0
    said = capsys.readouterr().out
    assert f"{52 - len(before)} sky masks, {len(before)} were there" in said
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert command.main(["sky", *arguments(whole)]) == 0
    masks = {p.relative_to(whole): p.read_bytes() for p in whole.rglob("*.png")}
    assert masks == {p.relative_to(killed): p.read_bytes() for p in killed.rglob("*.png")}


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys, model):
    run = command.main
    assert run(["sky", "--help"]) == 0 and "--raw=DIR" in capsys.readouterr().out
    for arguments, said in (
        (["sample/icl"], "--out=MASKS are needed"),
        (["nothing", f"--out={tmp_path}"], "cannot build data set 'nothing'"),
        (["sample/icl", f"--out={tmp_path}", "--raw=/no/where"], "/no/where does not exist"),
        (["sample/icl", f"--out={tmp_path}", "--batch_size=0"], "batch_size"),
    ):
        assert run(["sky", *arguments]) == 2
        assert said in capsys.readouterr().err
    broken = dataclasses.replace(make_builder([Frame("a", b"no image")]), name="sample/broken")
    monkeypatch.setattr(catalog, "builder_of", lambda name: broken)
    assert run(["sky", "x", f"--out={tmp_path}", f"--model={model}", "--device=cpu"]) == 1
    assert "1 could not be read" in capsys.readouterr().err
