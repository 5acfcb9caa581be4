"""The command from weights to table and page; the job of a recipe is in test_chain.py."""

import contextlib
import dataclasses
import json
import re
import shlex
import signal
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT
from random_weights import TINY, random_weights

from dav import evaluate, evaluation_data, evaluation_job, evaluation_run
from dav.data import prepare
from dav.data.examples import encode_example
from dav.data.frames import DEPTH, DISPARITY, Frame, Target
from dav.errors import ConfigError, DavError
from dav.evaluation import engine
from dav.evaluation.protocols import PROTOCOLS
from dav.inference import make_depth_model
from dav.runtime import processes
from dav.viz import encode_png
from dav.weights.save import save_official

PAGE = (ROOT / "docs" / "evaluation.md").read_text()
SMALL = "--size_px=42"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder with two networks of random weights, and a metric one."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("one", "two")):
        save_official(folder / f"{name}.safetensors", random_weights(TINY, seed))
    save_official(folder / "metres.safetensors", metric())
    return folder


def metric():
    found = random_weights(TINY, 2)
    return dataclasses.replace(
        found, architecture=dataclasses.replace(TINY, max_depth_m=20.0), source="metres"
    )


@pytest.fixture
def run(weights, sample_root, tmp_path, capsys):
    """run(*options) → (exit code, stdout, stderr, eval.json's content or None)."""

    def call(*options, specs=("one",), sets=("tum",), out=tmp_path / "out"):
        named = [f"--weights={weights / spec}.safetensors" for spec in specs]
        named += [f"--data={sample_root / 'sample' / name}" for name in sets]
        code = evaluate.main(["dav.evaluate", *named, f"--out={out}", SMALL, *options])
        path = out / "eval.json"
        content = json.loads(path.read_text()) if path.exists() else None
        return code, *capsys.readouterr(), content

    return call


def figures(content):
    """(model, data) → {metric: value}."""
    names = ("abs_rel", "delta1", "delta2", "delta3", "rmse", "log10", "silog", "sq_rel")
    return {(r["model"], r["data"]): {n: r[n] for n in names} for r in content["rows"]}


def test_several_weights_and_sets_make_a_table_figures_and_a_page(run, tmp_path):
    code, out, err, content = run(specs=("one", "two"), sets=("tum", "lab"))
    assert code == 0, err
    assert list(figures(content)) == [
        ("one", "sample/tum"),
        ("two", "sample/tum"),
        ("one", "sample/lab"),
        ("two", "sample/lab"),
    ]
    for row in content["rows"]:
        assert row["split"] == "heldout" and row["align"] == "lstsq_disparity"
        assert 0 < row["abs_rel"] < 2 and f"{row['abs_rel']:.4f}" in out
    for one in content["sets"]:
        protocol = one["protocol"]
        assert protocol["crop"] == "none" and protocol["max_depth_m"] == 10
        assert protocol["short_side_px"] == 42 and protocol["space"] == "depth"
        assert len(protocol["images_sha256"]) == 64
        assert {len(h) for h in protocol["weights_sha256"].values()} == {64}
    page = (tmp_path / "out" / "index.html").read_text()
    assert "sample/lab" in page and page.count("<img ") > 10


def test_the_same_command_again_computes_nothing(run, tmp_path, monkeypatch):
    first = run(sets=("tum", "lab"))
    before = (tmp_path / "out" / "eval.json").read_bytes()
    calls = []
    look = engine.look
    monkeypatch.setattr(engine, "look", lambda *a, **k: calls.append(1) or look(*a, **k))
    assert run(sets=("tum", "lab"))[0] == 0 and not calls
    assert (tmp_path / "out" / "eval.json").read_bytes() == before
    assert run(sets=("tum",))[0] == 0 and not calls
    for change in ("--crop=nyu", "--max_depth_m=5", "--space=disparity", "--limit=1"):
        assert run(change)[0] == 0
    assert run(specs=("two",))[0] == 0 and len(calls) == 5
    assert first[0] == 0


def test_stored_results_that_are_damaged_are_made_again(run, tmp_path):
    _, _, _, content = run()
    (path,) = (tmp_path / "out" / "sets").iterdir()
    path.write_bytes(path.read_bytes()[:200])
    code, out, _, again = run()
    assert code == 0 and "damaged" in out and again == content


def test_figures_do_not_depend_on_the_batch_size(run, tmp_path):
    """On a CPU images run one by one whatever the batch, and figures are equal to the bit; on an
    accelerator a product of other shape may be rounded otherwise."""
    found = [
        figures(run(f"--batch_size={size}", sets=("lab",), out=tmp_path / str(size))[3])
        for size in (1, 4)
    ]
    for one, other in zip(found[0].values(), found[1].values(), strict=True):
        assert other == pytest.approx(one, abs=1e-6)


def test_two_processes_find_what_one_finds(run, weights, sample_root, start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--coordinator={address}", "--num_processes=2"]
    options += [f"--weights={weights / 'one.safetensors'}", SMALL, "--space=disparity"]
    options += [f"--data={sample_root / 'sample' / name}" for name in ("lab", "tum")]
    options += [f"--out={tmp_path / 'both'}"]
    processes = [
        start(*options, f"--process_id={index}", module="dav.evaluate") for index in (0, 1)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "AbsRel" in said[0][0] and "AbsRel" not in said[1][0]
    together = json.loads((tmp_path / "both" / "eval.json").read_text())
    alone = run("--space=disparity", sets=("lab", "tum"))[3]
    assert together["sets"] == alone["sets"]
    for one, other in zip(together["rows"], alone["rows"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_the_devices_of_a_process_share_the_images():
    found = random_weights(TINY, 0)
    models = [make_depth_model(found.params, TINY, size_px=42) for _ in range(3)]
    rng = np.random.default_rng(0)
    images = [(k, rng.integers(0, 256, (60, 80, 3), np.uint8)) for k in range(7)]
    one, three = (dict(evaluation_run.ask_all(models[:n], iter(images))) for n in (1, 3))
    assert sorted(three) == list(range(7))
    for key, map_ in one.items():
        np.testing.assert_array_equal(three[key], map_)


def test_metric_weights_stand_as_they_are_unless_told(run):
    _, _, _, content = run(specs=("metres", "one"))
    aligned = {row["model"]: row["align"] for row in content["rows"]}
    assert aligned == {"metres": "none", "one": "lstsq_disparity"}
    plain = figures(content)["metres", "sample/tum"]["abs_rel"]
    _, _, _, content = run("--align=median", specs=("metres", "one"))
    assert {row["align"] for row in content["rows"]} == {"median"}
    assert figures(content)["metres", "sample/tum"]["abs_rel"] != plain


def test_a_part_of_a_benchmark_is_said_to_be_one(run):
    code, out, _, content = run("--limit=2", sets=("lab",))
    assert code == 0 and content["rows"][0]["images"] == 2
    assert "2 of the benchmark's 5 images: not the benchmark" in out
    assert "not the benchmark" in content["rows"][0]["warning"]
    assert content["sets"][0]["protocol"]["chosen"] == "2 of 5, evenly spaced"
    assert "warning" not in run(sets=("lab",))[3]["rows"][0]


def test_images_above_the_cap_are_left_out_and_counted(run):
    code, _, err, _ = run("--max_depth_m=0.05", sets=("lab",))
    assert code == 1 and "has no image to evaluate on: all 5 are left out" in err
    assert "no depth between 0.001 and 0.05 m" in err and "Traceback" not in err


def test_weights_that_predict_nan_are_named_and_nothing_is_overwritten(run, weights, tmp_path):
    broken = random_weights(TINY, 0)
    broken.params["encoder"]["norm"]["bias"][:] = np.nan
    save_official(weights / "broken.safetensors", broken)
    code, _, _, before = run(specs=("one",))
    code, _, err, content = run(specs=("one", "broken"))
    assert code == 1 and content == before
    assert "the prediction of broken for tum/" in err and "not finite" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--align=best"], "unknown --align=best; known: lstsq_disparity"),
        (["--crop=middle"], "unknown --crop=middle; known: none"),
        (["--space=log"], "unknown --space=log"),
        (["--max_depth_m=-1"], "max_depth_m"),
        (["--min_depth_m=0"], "--min_depth_m=0 must be above zero"),
        (["--min_depth_m=20"], "least depth, 20 m, must be below the cap, 10 m"),
        (["--align=none"], "not metres"),
        (["--limit=-3"], "limit"),
        (["--size_px=3"], "too small"),
        (["--dtype=float8"], "float8"),
        (["--num_processes=2"], "--process_id and --num_processes belong together"),
        (["--split=nowhere"], "has no split 'nowhere'"),
        (["--data=/nowhere"], "/nowhere is no folder"),
        (["--weights=nowhere.safetensors"], "nowhere.safetensors"),
        (["surplus"], "unexpected argument 'surplus'"),
        (["--frobnicate=1"], "frobnicate"),
    ],
)
def test_bad_options_are_one_clear_error(run, options, said):
    code, _, err, content = run(*options)
    assert code in (1, 2) and said in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1 and content is None


@pytest.mark.parametrize("option", ["--help", "--frobnicate"])
def test_usage_is_quick(option):
    code = (
        "import sys; from dav import evaluate; evaluate.main(sys.argv); "
        "assert not {'jax', 'numpy'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_that_a_library_swallows_is_heeded(run, monkeypatch):
    load = evaluation_run.load

    def interrupted(*arguments):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return load(*arguments)

    monkeypatch.setattr(evaluation_run, "load", interrupted)
    code, _, err, content = run()
    assert code == 75 and "the same command continues" in err and content is None


def test_of_processes_asked_to_stop_none_takes_the_others_for_lost(monkeypatch):
    asked = []

    def lost(*_):
        asked.append("while waiting for another")
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(evaluation_data, "choose", lost)
    monkeypatch.setattr(processes, "has_lost_another", lambda error: True)
    with pytest.raises(KeyboardInterrupt):
        evaluation_run.run(str, ["a"], [], None, ".", asked)


@pytest.mark.parametrize("name", ["weights", "data", "out"])
def test_what_is_missing_is_said(name, capsys):
    given = {"weights": "a", "data": "b", "out": "c"}
    options = [f"--{key}={value}" for key, value in given.items() if key != name]
    assert evaluate.main(["dav.evaluate", *options]) == 2
    assert f"--{name} is missing" in capsys.readouterr().err


def test_unlabelled_sets_have_no_truth(run):
    code, _, err, _ = run("--split=train", sets=("photos",))
    assert code == 1 and "unlabelled" in err


def test_a_folder_above_several_sets_names_all_that_have_truth(sample_root, capsys):
    options = evaluation_data.Options()
    roots = evaluate.find_sets([sample_root], options)
    assert set(roots) == {f"sample/{name}" for name in ("icl", "tum", "lab")}
    assert set(roots.values()) == {sample_root}
    assert "sample/photos: left out" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no prepared data set"):
        evaluate.find_sets([sample_root / "sample" / "icl" / "1.0.0" / "parts"], options)


@pytest.fixture
def hrwsi_root(tmp_path):
    """The root of HRWSI with one image of random disparity in each split."""
    disparity = np.random.default_rng(0).integers(0, 256, (12, 20), np.uint8)
    for split in ("train", "val"):
        maps = {"imgs/a.jpg": np.dstack(3 * [disparity]), "gts/a.png": disparity}
        for name, values in (maps | {"valid_masks/a.png": disparity | 1}).items():
            path = tmp_path / "raw" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), values)
    prepare.prepare(tmp_path / "data", "hrwsi", raw=tmp_path / "raw")
    return tmp_path / "data"


def test_disparity_of_unknown_shift_is_no_truth(hrwsi_root, sample_root, capsys):
    options = evaluation_data.Options()
    models = evaluation_job.blind_models()
    with pytest.raises(DavError, match="'hrwsi'.*unknown shift.*would decide every figure"):
        evaluation_data.choose(hrwsi_root, "hrwsi", models, options)
    (hrwsi_root / "sample").symlink_to(sample_root / "sample")
    assert "sample/tum" in evaluate.find_sets([hrwsi_root], options)
    assert "hrwsi: left out, its disparity has an unknown shift" in capsys.readouterr().out


def test_ones_own_disparity_is_evaluated_as_one_without_shift(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset.yaml").write_text("images: '*.jpg'\ndisparity: '*.npy'\n")
    assert cv2.imwrite(str(raw / "a.jpg"), np.zeros((12, 20, 3), np.uint8))
    np.save(raw / "a.npy", np.random.default_rng(0).uniform(1, 9, (12, 20)).astype(np.float32))
    prepare.prepare(tmp_path / "data", "folder/own", raw=raw)
    chosen = evaluation_data.choose(
        tmp_path / "data", "folder/own", evaluation_job.blind_models(), evaluation_data.Options()
    )
    assert chosen.protocol["truth"] == "as measured, disparity: 0 is infinitely far"


def test_one_name_below_two_roots_is_refused(sample_root, tmp_path):
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "tum").symlink_to(sample_root / "sample" / "tum")
    with pytest.raises(ConfigError, match="name one"):
        evaluate.find_sets(
            [sample_root / "sample" / "tum", tmp_path / "sample" / "tum"], evaluation_data.Options()
        )


def test_its_page_has_commands_that_are_understood_and_every_protocol(tmp_path):
    commands = re.findall(r"^python -m dav.evaluate .*$", PAGE, re.M)
    assert len(commands) >= 3
    for command in commands:
        evaluate.parse(shlex.split(command)[2:])
    for name, protocol in PROTOCOLS.items():
        (row,) = re.findall(rf"^\| {name} \|.*$", PAGE, re.M)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        ends = f"{protocol.min_depth_m:g}–{protocol.max_depth_m:g}"
        count = f"{protocol.images:,}" if protocol.images else "–"
        expected = [name, protocol.split, count, ends, protocol.crop]
        assert cells == (expected if name != "da2k" else [name, "test", "–", "–", "–"])


def test_weights_are_named_shortly_and_apart():
    specs = ["a/x.pth", "b/x.pth", "hf:org/net@main", "runs/student/", "w/y.fp16.safetensors"]
    assert evaluate.names_of(specs) == ["a/x.pth", "b/x.pth", "net", "student", "y.fp16"]
    assert evaluate.split_list(["a,b", "c", "a"]) == ["a", "b", "c"]


def test_pairs_of_points_from_raw_folder_to_accuracy(tmp_path):
    """DA-2K's layout: by the ramp, what is lower is closer."""
    right, wrong = ([[9, 1], [2, 18]], [[3, 5], [10, 5]])
    write_da2k(tmp_path / "raw", {"indoor/a": [right, right], "outdoor/b": [wrong]})
    prepare.prepare(tmp_path / "data", "da2k", raw=tmp_path / "raw")
    (result,) = evaluation_run.run(
        lambda name: tmp_path / "data",
        ["da2k"],
        evaluation_job.blind_models(),
        evaluation_data.Options(),
        tmp_path / "out",
    )
    assert result.images == 2 and result.split == "test"
    assert result.figures["ramp"] == {
        "accuracy": pytest.approx(2 / 3),
        "accuracy indoor": 1.0,
        "accuracy outdoor": 0.0,
    }
    assert result.figures["constant"]["accuracy"] == 0
    assert "align" not in result.protocol


def write_da2k(raw, pairs):
    """DA-2K's raw folder: scene/name → pairs of (closer, farther) points."""
    annotations = {}
    for name, points in pairs.items():
        path = f"images/{name}.png"
        (raw / path).parent.mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
        (raw / path).write_bytes(encode_png(image))
        annotations[path] = [
            {"point1": closer, "point2": farther, "closer_point": "point1"}
            for closer, farther in points
        ]
    (raw / "annotations.json").write_text(json.dumps(annotations))


@pytest.mark.parametrize("quantity", [DEPTH, DISPARITY])
def test_truth_up_to_scale_is_read_as_depth(quantity):
    values = np.array([[1.0, 2.0, 4.0]], np.float32)
    target = Target(quantity, values, np.array([[True, True, False]]), unit=1.0)
    image = np.zeros((1, 3, 3), np.uint8)
    record = encode_example(Frame("a", image, target), encode_png(image))
    record = {k: v.encode() if isinstance(v, str) else v for k, v in record.items()}
    example = evaluation_data.decode(record)
    expected = values if quantity == DEPTH else 1 / values
    np.testing.assert_array_equal(example["valid"], [[True, True, False]])
    np.testing.assert_allclose(example["depth"][0, :2], expected[0, :2])


def test_blind_models():
    ramp = evaluation_job.vertical_ramp(5, 3)
    assert (np.diff(ramp, axis=0) > 0).all() and np.ptp(ramp[2]) == 0
    assert np.ptp(evaluation_job.constant_map(5, 3)) == 0


def test_an_option_error_is_a_config_error():
    with pytest.raises(ConfigError, match="align"):
        evaluation_data.check(evaluation_data.Options(align="x"))
    assert issubclass(ConfigError, DavError)
