import os
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_files import build, ramp, stored, stored_disparity, write_image, write_steps

from dav import prepare as job
from dav.data import prepare
from dav.data.builders import folder
from dav.data.frames import DEPTH, DEPTH_M, DISPARITY, Frame, Skipped
from dav.data.own import PARSERS, read_description
from dav.data.own_rows import Row, fill, match, name_rows, natural
from dav.errors import ConfigError, DavError
from dav.files import checksum, read_json, write_json

BUILDER = folder.make("folder/garage")
PAIRS = "images: rgb/*.png\ndepth: depth/*.png\nunit: mm\n"


def describe(raw, text):
    (raw / "dataset.yaml").write_text(text)
    return raw


@pytest.fixture
def pairs(tmp_path):
    """Three images and depth in millimetres, named so that text order is not their order."""
    for number in (2, 10, 1):
        write_image(tmp_path / f"rgb/frame_{number}.png", seed=number)
        write_steps(tmp_path / f"depth/frame_{number}.png", ramp(first=1000 * number))
    return describe(tmp_path, PAIRS)


def ids(entries):
    return [entry.id for entry in entries]


# Names


@pytest.mark.parametrize("name", ["folder", "folder/", "folder/a b", "folder/../x", "garage"])
def test_impossible_names_are_refused(name):
    with pytest.raises(ConfigError, match="folder/NAME"):
        folder.make(name)


def test_the_builder_is_of_the_name():
    assert (BUILDER.name, BUILDER.kind, BUILDER.version) == ("folder/garage", "own", "1.0.0")


@given(st.lists(st.sampled_from(["a", "a.png", "a.jpg", "a.png.png", "b/a.jpg"]), unique=True))
def test_ids_are_unique(images):
    names = name_rows([Row(image) for image in images])
    assert len(set(names)) == len(images)


# Images alone


def test_every_image_of_a_folder_is_taken_unlabelled(tmp_path):
    for path in ("b/10.JPG", "b/9.jpg", "a.png", "a.jpg", ".hidden.jpg", ".cache/x.jpg"):
        write_image(tmp_path / path)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = build(BUILDER, tmp_path)
    assert ids(found["train"]) == ["a.jpg", "a.png", "b/9", "b/10"] and set(found) == {"train"}
    assert all(frame.target is None for frame in found["train"])
    assert found["train"][2].image == (tmp_path / "b/9.jpg").read_bytes()


def test_what_cannot_be_decoded_is_left_to_the_engine(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    empty, gone, torn = build(BUILDER, tmp_path)["train"]
    assert isinstance(torn, Frame) and isinstance(empty, Frame)
    assert isinstance(gone, Skipped) and "broken link" in gone.reason


@pytest.mark.parametrize("suffix", ["png", "pgm"])
def test_depth_maps_are_not_taken_for_photographs(tmp_path, suffix):
    write_image(tmp_path / "rgb/1.png")
    write_steps(tmp_path / f"depth/1.{suffix}", ramp())
    left_out, image = build(BUILDER, tmp_path)["train"]
    assert isinstance(image, Frame) and isinstance(left_out, Skipped)
    assert re.search(rf"depth/1\.{suffix}.*16 bits.*images: rgb/\*\.jpg", left_out.reason)
    found = build(BUILDER, describe(tmp_path, "images: rgb/*.png"))
    assert ids(found["train"]) == ["rgb/1"] and found["train"][0].target is None


def test_a_folder_without_images_is_said(tmp_path):
    with pytest.raises(DavError, match=r"holds no image; known suffixes: .*\.jpg"):
        BUILDER.plan(tmp_path)
    with pytest.raises(DavError, match="is missing"):
        BUILDER.plan(tmp_path / "elsewhere")


# Pairs by patterns


def test_pairs_by_pattern_in_natural_order(pairs):
    found = build(BUILDER, pairs)
    assert ids(found["train"]) == ["rgb/frame_1", "rgb/frame_2", "rgb/frame_10"]
    target = found["train"][1].target
    assert target.quantity == DEPTH_M and target.unit == pytest.approx(0.001)
    assert target.values[0, 3] == pytest.approx(2.03)
    assert stored(found["train"][1])["depth_m"][5, 0] == pytest.approx(2.4)


def test_pairs_side_by_side_at_any_depth(tmp_path):
    """One pattern matches the maps too; they are not images."""
    for name in ("x/y/a", "b"):
        write_image(tmp_path / f"{name}.png")
        write_steps(tmp_path / f"{name}_depth.png", ramp())
        write_steps(tmp_path / f"{name}_mask.png", np.eye(6, 8, dtype=np.uint8))
    text = "images: '**/*.png'\ndepth: '**/*_depth.png'\nmask: '**/*_mask.png'\nunit: mm"
    found = build(BUILDER, describe(tmp_path, text))
    assert ids(found["train"]) == ["b", "x/y/a"]
    assert np.array_equal(found["train"][0].target.valid, np.eye(6, 8, dtype=bool))


def test_the_last_share_is_held_out(pairs):
    describe(pairs, PAIRS + "held_out: 0.4")
    found = build(BUILDER, pairs)
    assert ids(found["train"]) == ["rgb/frame_1", "rgb/frame_2"]
    assert ids(found["test"]) == ["rgb/frame_10"]
    describe(pairs, PAIRS + "held_out: 0.9")
    with pytest.raises(DavError, match=r"held_out: 0\.9 of 3 images leaves none"):
        BUILDER.plan(pairs)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("depth/frame_2.png", r"1 of 3 images have no depth.*rgb/frame_2.png.*depth/frame_2.png"),
        ("rgb/frame_10.png", r"1 of 3 files of depth have no image.*needs rgb/frame_10.png"),
    ],
)
def test_missing_partners_are_counted_and_named(pairs, gone, told):
    (pairs / gone).unlink()
    with pytest.raises(DavError, match=told):
        BUILDER.plan(pairs)


@pytest.mark.parametrize("wild", ["[z-a]", "[!]"])
def test_character_ranges_that_mean_nothing_are_named(pairs, wild):
    told = re.escape(f"dataset.yaml: images: rgb/{wild}*.png: no character fits {wild}")
    with pytest.raises(DavError, match=told):
        BUILDER.plan(describe(pairs, f"images: rgb/{wild}*.png"))


@given(
    st.sampled_from(["**/*_rgb.png", "*/rgb/?.png", "**/a[0-9]/*", "x.png", "a.b/**"]),
    st.lists(st.text("ab0.", min_size=1, max_size=3), min_size=3, max_size=3),
)
def test_what_wildcards_stand_for_fills_them_again(pattern, texts):
    path = fill(pattern, texts)
    parts = match(pattern, path)
    assert parts is None or fill(pattern, parts) == path
    assert match("rgb/*.png", "rgb/a.png") == ("a",) and match("rgb/*.png", "rgb/a/b.png") is None
    assert match("**/*.png", "a.png") == ("", "a") and match("*.png", "axpng") is None
    assert match("[!a]?.png", "bc.png") == ("b", "c") and match("[!a]?.png", "ac.png") is None


def test_numbers_in_names_count_as_numbers():
    names = ["a10.png", "a9.png", "10/x", "9/x", "a.png"]
    assert sorted(names, key=natural) == ["9/x", "10/x", "a9.png", "a10.png", "a.png"]


# Pairs by table


def test_pairs_by_table(pairs):
    write_steps(pairs / "sky.png", np.eye(6, 8, k=1, dtype=np.uint8) * 255)
    (pairs / "pairs.csv").write_text(
        "\ufeffimage, depth ,sky,split\n"
        "rgb/frame_10.png,depth/frame_1.png,sky.png,test\n"
        "\n"
        "rgb/frame_2.png,depth/frame_2.png,,\n"
    )
    found = build(BUILDER, describe(pairs, "table: pairs.csv\nunit: 0.001"))
    assert ids(found["test"]) == ["rgb/frame_10"] and ids(found["train"]) == ["rgb/frame_2"]
    frame = found["test"][0]
    assert frame.target.sky[0, 1] and not frame.target.valid[0, 1]
    assert frame.target.values[0, 3] == pytest.approx(1.03)
    assert stored_disparity(frame)["valid"][0, 1] and not stored(frame)["valid"][0, 1]


def test_a_table_of_images_alone(pairs):
    (pairs / "list.csv").write_text("image\nrgb/frame_1.png\n")
    (frame,) = build(BUILDER, describe(pairs, "table: list.csv"))["train"]
    assert frame.target is None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("image,depht\n", "unknown column 'depht'; did you mean depth?"),
        ("image;depth\na;b\n", "separated by ;"),
        ("depth\nx.png\n", "no column image"),
        ("image,depth,image\n", "column image stands there twice"),
        ("image,depth,disparity\n", "depth and disparity; keep one"),
        ("image,mask\n", "neither depth nor disparity"),
        ("image,depth\n", "no line but its header"),
        ("image,depth\nrgb/frame_1.png\n", "line 2 has 1 cells, the header 2"),
        ("image,depth\nrgb/frame_1.png,\n", "line 2: depth is empty"),
        ("image,depth\n\nrgb/x.png,depth/frame_1.png\n", r"line 3: image .*rgb/x\.png is missing"),
        ("image,depth\nrgb/frame_1.png,/etc/passwd\n", "line 2: depth /etc/passwd leads out"),
        ("image,depth\n../a.png,depth/frame_1.png\n", r"line 2: image \.\./a\.png leads out"),
        (
            "image,depth,split\nrgb/frame_1.png,depth/frame_1.png,eval\n",
            "line 2: split 'eval' is not one of train, val, test",
        ),
        (
            "image,depth\n" + "rgb/frame_1.png,depth/frame_1.png\n" * 2,
            r"line 3: rgb/frame_1\.png stands in line 2 already",
        ),
    ],
)
def test_a_table_s_mistakes_are_named_with_their_line(pairs, lines, told):
    (pairs / "pairs.csv").write_text(lines)
    with pytest.raises(DavError, match=told):
        BUILDER.plan(describe(pairs, "table: pairs.csv\nunit: mm"))


def test_held_out_and_a_column_split_are_one_too_many(pairs):
    (pairs / "pairs.csv").write_text("image,split\nrgb/frame_1.png,test\n")
    with pytest.raises(DavError, match="held_out and the column split"):
        BUILDER.plan(describe(pairs, "table: pairs.csv\nheld_out: 0.1"))


# dataset.yaml


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image: rgb/*.png", "unknown key 'image'; did you mean images?"),
        ("colour: red", "unknown key 'colour'; known: images"),
        ("images: [", "is not YAML.*line"),
        ("- images", "lines `key: value`"),
        ("", "lines `key: value`"),
        ("images: a/*\nimages: b/*", "images stands there twice"),
        ("images: 3", "images: 3 is not a pattern"),
        ("images: ../rgb/*.png", "leads out of the folder"),
        ("images: rgb/*.png\ndepth: depth/*.png", "unit is missing.*mm, cm, m"),
        (PAIRS.replace("mm", "inch"), "unit: 'inch' is not mm, cm, m"),
        (PAIRS.replace("mm", "-1"), "unit: -1 is not mm"),
        (PAIRS + "scale: 0", "scale: 0 must be above 0"),
        (PAIRS + "scale: yes", "scale: True is not a number"),
        (PAIRS + "invalid: [0, none]", "'none'] is not a number"),
        (PAIRS + "invalid_below: 5\ninvalid_above: 5", "less than invalid_above"),
        (PAIRS + "held_out: 10", "held_out: 10 must be a share"),
        (PAIRS + "disparity: disp/*.png", "depth and disparity are both given"),
        (PAIRS + "table: pairs.csv", "images must not be given beside it"),
        ("depth: depth/*.png\nunit: mm", "images is missing"),
        ("images: rgb/*.png\nunit: mm", "unit is given, but neither depth nor disparity"),
        ("images: rgb/*.png\ndisparity: depth/*.png\nunit: m", "does not go with disparity"),
        ("images: rgb/*.png\ndepth: depth/*/*.png\nunit: m", "has 1 wildcards and depth.* has 2"),
        ("images: rgb", "names a folder.*rgb/\\*.png"),
        ("images: colour/*.png", "matches images: colour/"),
    ],
)
def test_mistakes_in_the_description_are_named(pairs, text, told):
    with pytest.raises(DavError, match=told):
        BUILDER.plan(describe(pairs, text))


def test_numbers_may_be_written_as_yaml_does_not_know_them(pairs):
    description = read_description(describe(pairs, PAIRS.replace("mm", "1e-3") + "invalid: .nan"))
    assert description.unit == 0.001 and description.invalid == ()


@settings(max_examples=40)
@given(st.binary(max_size=60), st.sampled_from([*PARSERS, "x"]), st.text(max_size=20))
def test_any_description_is_read_or_refused(tmp_path_factory, content, key, text):
    raw = tmp_path_factory.getbasetemp() / "fuzzed"
    raw.mkdir(exist_ok=True)
    for written in (content, f"{key}: {text}".encode(errors="ignore")):
        (raw / "dataset.yaml").write_bytes(written)
        try:
            read_description(raw)
        except DavError as error:
            assert "dataset.yaml" in str(error)


# Values


@pytest.mark.parametrize(
    ("text", "factor"),
    [("mm", 0.001), ("cm", 0.01), ("m\nscale: 256", 1 / 256), ("m\nscale: 5000", 1 / 5000)],
)
def test_units_and_scales(pairs, text, factor):
    frame = build(BUILDER, describe(pairs, PAIRS.replace("mm", text)))["train"][0]
    assert frame.target.values[2, 1] == pytest.approx(1170 * factor)
    assert stored(frame)["depth_m"][2, 1] == pytest.approx(1170 * factor)


def test_depth_up_to_scale(pairs):
    frame = build(BUILDER, describe(pairs, PAIRS.replace("mm", "up_to_scale")))["train"][0]
    assert frame.target.quantity == DEPTH
    disparity = stored_disparity(frame)["disparity"]
    assert disparity[0, 0] / disparity[5, 7] == pytest.approx(1470 / 1000, rel=1e-3)


def test_disparity_of_eight_bits_is_not_inverted(pairs):
    for number in (1, 2, 10):
        write_steps(pairs / f"depth/frame_{number}.png", ramp(first=0, step=5, dtype=np.uint8))
    text = "images: rgb/*.png\ndisparity: depth/*.png\nscale: 4"
    frame = build(BUILDER, describe(pairs, text))["train"][0]
    assert frame.target.quantity == DISPARITY and not frame.target.valid[0, 0]
    assert stored_disparity(frame)["disparity"][5, 7] == 235 / 4


def test_invalid_values(pairs):
    steps = ramp(first=1000)
    steps[0, :4] = 0, 65535, 999, 1500
    write_steps(pairs / "depth/frame_1.png", steps)
    with pytest.raises(DavError, match=r"frame_1\.png has pixels of 65535.*invalid: 65535"):
        build(BUILDER, pairs)
    text = PAIRS + "invalid: [65535, 1050]\ninvalid_below: 1000\ninvalid_above: 1470"
    target = build(BUILDER, describe(pairs, text))["train"][0].target
    assert target.valid[0].tolist() == [*[False] * 4, True, False, True, True]
    assert target.valid[1:].all()


@pytest.mark.parametrize("suffix", ["npy", "npz", "pfm", "tiff", "exr", "h5", "dpt"])
def test_maps_of_floats_in_every_format(tmp_path, suffix):
    values = ramp(first=1, step=0.125, dtype=np.float32)
    values[1, 2], values[3, 4], values[5, 6] = np.nan, -1, np.inf
    write_image(tmp_path / "rgb/a.png")
    write_floats(tmp_path / f"depth/a.{suffix}", values)
    text = f"images: rgb/*.png\ndepth: depth/*.{suffix}\nunit: m\n"
    text += "key: z" if suffix in ("npz", "exr", "h5") else ""
    (frame,) = build(BUILDER, describe(tmp_path, text))["train"]
    assert np.argwhere(~frame.target.valid).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert frame.target.values[5, 0] == 6.0 and frame.target.values[0, 7] == 1.875
    assert stored(frame)["depth_m"][0, 7] == pytest.approx(1.875, rel=1e-4)


def write_floats(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    if path.suffix == ".npy":
        np.save(path, values[..., None])
    elif path.suffix == ".npz":
        np.savez(path, z=values, other=values + 1)
    elif path.suffix == ".pfm":
        body = values.astype("<f4")[::-1].tobytes()
        path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + body)
    elif path.suffix == ".tiff":
        assert cv2.imwrite(str(path), values)
    elif path.suffix == ".dpt":
        sizes = np.array([width, height], "<i4").tobytes()
        path.write_bytes(np.float32(202021.25).tobytes() + sizes + values.tobytes())
    elif path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["z"] = values
    else:
        openexr = pytest.importorskip("OpenEXR")
        channels = {"z": values, "other": values + 1}
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        openexr.File(header, channels).write(str(path))


def test_whole_numbers_beyond_16_bits_are_kept_nearly(tmp_path):
    write_image(tmp_path / "a.jpg")
    np.save(tmp_path / "a.npy", ramp(first=100_000, step=1000, dtype=np.int32))
    text = "images: '*.jpg'\ndepth: '*.npy'\nunit: mm\nscale: 10"
    (frame,) = build(BUILDER, describe(tmp_path, text))["train"]
    assert frame.target.unit is None
    assert stored(frame)["depth_m"][5, 7] == pytest.approx(14.7, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("a.png", lambda p: write_steps(p, ramp(dtype=np.uint8)), "8 bits: 255 steps"),
        ("a.png", lambda p: write_image(p), "not a grey image"),
        ("a.png", lambda p: write_steps(p, ramp((8, 6))), r"a\.png is 6×8, its image .*8×6"),
        ("a.png", lambda p: p.write_bytes(b"\x89PNG"), r"a\.png"),
        ("a.jpg", lambda p: write_image(p), "JPEG, which changes values"),
        ("a.raw", lambda p: p.write_bytes(b"1234"), r"maps may be \.png.*not \.raw"),
        ("a.npy", lambda p: np.save(p, np.ones((3, 6, 8))), "not of 2 axes"),
        ("a.npz", lambda p: np.savez(p, x=np.ones((6, 8)), y=1), "has x, y: say which"),
        ("a.npz", lambda p: np.savez(p, x=np.ones(6)), r"float64 \(6,\), not a map"),
        ("a.h5", lambda p: p.write_bytes(b"1"), "say which data set"),
        ("a.tif", lambda p: p.write_bytes(b"II*\0"), r"cannot read .*a\.tif"),
    ],
)
def test_maps_that_are_none_are_refused(tmp_path, name, write, told):
    write_image(tmp_path / "rgb/a.png")
    (tmp_path / "depth").mkdir()
    write(tmp_path / "depth" / name)
    describe(tmp_path, f"images: rgb/*.png\ndepth: depth/*{name[1:]}\nunit: mm")
    with pytest.raises(DavError, match=told):
        build(BUILDER, tmp_path)


def test_masks_of_another_size_are_refused(pairs):
    for number in (1, 2, 10):
        write_steps(pairs / f"mask/frame_{number}.png", np.ones((8, 6), np.uint8))
    with pytest.raises(DavError, match=r"mask/frame_1\.png is 6×8, the map .* 8×6"):
        build(BUILDER, describe(pairs, PAIRS + "mask: mask/*.png"))


def test_a_map_without_a_valid_pixel_is_skipped_with_what_it_holds(pairs):
    write_steps(pairs / "depth/frame_2.png", np.zeros((6, 8), np.uint16))
    skipped = build(BUILDER, pairs)["train"][1]
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "depth/frame_2.png has no valid pixel (values 0 … 0)"


@pytest.mark.parametrize(
    ("unit", "first", "likely"),
    [
        ("m", 20_000, r"unit: mm with scale: 1 gives 20\.2 m"),
        ("m", 20_000, r"unit: m with scale: 5000 gives 4\.05 m"),
        ("mm\nscale: 5000", 2000, r"unit: mm with scale: 1 gives 2\.2\d m"),
        ("1e-12", 2000, r"unit: m with scale: 256 gives 8\.7\d m"),
    ],
)
def test_an_impossible_unit_is_refused_with_likelier_ones(pairs, unit, first, likely):
    write_steps(pairs / "depth/frame_1.png", ramp(first=first))
    with pytest.raises(DavError, match=rf"frame_1\.png: with unit: .* cannot be; .*{likely}"):
        build(BUILDER, describe(pairs, PAIRS.replace("mm", unit)))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_maps_of_turned_images_stand_upright_or_as_stored(tmp_path, orientation):
    """A size that is neither is refused; which of the two it is, preparing tells by the size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "rgb").mkdir()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "rgb/a.jpg", exif=exif)
    describe(tmp_path, PAIRS.replace("rgb/*.png", "rgb/*.jpg"))
    for size in ((8, 6), (6, 8)):
        write_steps(tmp_path / "depth/a.png", ramp(size))
        assert isinstance(build(BUILDER, tmp_path)["train"][0], Frame)
    write_steps(tmp_path / "depth/a.png", ramp((6, 6)))
    with pytest.raises(DavError, match=r"a\.png is 6×6, its image .*a\.jpg is 8×6"):
        build(BUILDER, tmp_path)


def test_another_description_is_another_plan(pairs):
    """A build that was begun with one unit must not go on with another."""
    before = BUILDER.plan(pairs)
    assert BUILDER.plan(describe(pairs, PAIRS.replace("mm", "cm"))) != before


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged TIFFs
@pytest.mark.parametrize("suffix", ["png", "pgm", "tiff", "npy"])
def test_mutated_maps_are_read_or_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, ramp())
    else:
        write_steps(path, ramp())
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        mutated = bytearray(content[: random.integers(1, len(content) + 1)])
        for place in random.integers(0, len(mutated), 3):
            mutated[place] = random.integers(256)
        path.write_bytes(mutated)
        try:
            assert folder.read_map(path).ndim == 2
        except DavError as error:
            assert str(path) in str(error)


def test_an_unreadable_folder_is_named(pairs):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (pairs / "rgb").chmod(0)
    with pytest.raises(DavError, match="cannot read the folder"):
        BUILDER.plan(pairs)


# A finished set


def test_a_finished_set_is_not_that_of_another_description(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    made = job.prepare_set("folder/garage", out, raw=pairs)
    assert "train 3" in made and "already" not in made
    again = job.prepare_set("folder/garage", out, raw=pairs)
    assert again == f"{made}; already prepared, nothing read from {pairs}"
    assert job.prepare_set("folder/garage", out) == made
    describe(pairs, PAIRS.replace("mm", "cm"))
    stood = out / "folder/garage/1.0.0"
    with pytest.raises(ConfigError, match=rf"{stood} was made from another dataset\.yaml than"):
        prepare.prepare(out, "folder/garage", raw=pairs)
    (stood / "features.json").unlink()  # damage, which would be repaired, changes nothing in that
    with pytest.raises(ConfigError, match="another dataset"):
        prepare.prepare(out, "folder/garage", raw=pairs)
    assert stood.is_dir()
    describe(pairs, PAIRS)
    (stood / "report.json").write_text("{")
    assert job.prepare_set("folder/garage", out, raw=pairs) == made


def test_photographs_that_a_description_came_to_are_another_set(tmp_path, tmp_path_factory):
    write_image(tmp_path / "rgb/1.png")
    out = tmp_path_factory.mktemp("out")
    folder = prepare.prepare(out, "folder/garage", raw=tmp_path)
    describe(tmp_path, "images: rgb/*.png")
    with pytest.raises(ConfigError, match="another dataset"):
        prepare.prepare(out, "folder/garage", raw=tmp_path)
    report = read_json(folder / "report.json")  # as sets had it before
    del report["description"]
    write_json(folder / "report.json", report)
    sums = read_json(folder / "checksums.json")
    sums["report.json"] = checksum(folder / "report.json")
    write_json(folder / "checksums.json", sums)
    assert prepare.prepare(out, "folder/garage", raw=tmp_path) == folder


# Real pairs


@pytest.mark.parametrize(
    ("files", "text", "depth_m"),
    [
        (
            "mosd/learn0?_*.png",
            "images: '*_rgb.png'\ndepth: '*_depth.png'\nunit: mm\nheld_out: 0.4",
            (0.7, 1.6),
        ),
        (
            "uoc/00000[0-4]-*.png",
            "images: '*-color.png'\ndepth: '*-depth.png'\nunit: m\nscale: 1000\nheld_out: 0.4",
            (0.4, 1.5),
        ),
        (
            "lab_slambook2/*/[1-3].p*",
            "images: color/*.png\ndepth: depth/*.pgm\nunit: 0.001\nheld_out: 0.3",
            (1, 6),
        ),
    ],
)
def test_real_pairs(extra_data, tmp_path, files, text, depth_m):
    source = extra_data / "samples" / files.split("/")[0]
    for path in sorted((extra_data / "samples").glob(files)):
        copy = tmp_path / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    found = build(BUILDER, describe(tmp_path, text))
    assert len(found["train"]) >= 2 and len(found["test"]) >= 1
    for frame in found["train"] + found["test"]:
        assert depth_m[0] < np.median(frame.target.values[frame.target.valid]) < depth_m[1]
        assert 0.3 < frame.target.valid.mean() <= 1
    frame = found["test"][0]
    depth = re.sub("rgb|color", "depth", frame.id)
    (path,) = (p for p in tmp_path.rglob("*.p*") if str(p.relative_to(tmp_path)).startswith(depth))
    steps = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    row, column = np.argwhere(steps > 0)[1000]
    example = stored(frame)
    assert example["depth_m"][row, column] == pytest.approx(steps[row, column] / 1000, rel=1e-6)
    assert np.array_equal(example["valid"], steps > 0)
