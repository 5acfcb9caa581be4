"""Result files: numbers come back, near is warm, and a folder says how it was made."""

import io
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dav import outputs, viz
from dav.errors import ConfigError, DavError

RAMP = np.linspace(0.5, 8, 60 * 80, dtype=np.float32).reshape(60, 80)  # larger further down
SETTINGS = {"weights": "w", "size_px": 518, "dtype": "float32"}


def encode(kind, values=RAMP, *, is_metric=False, colormap="spectral", preview=None):
    preview = np.zeros((*values.shape, 3), np.uint8) if preview is None else preview
    return outputs.encode(kind, values, preview, is_metric=is_metric, colormap=colormap)


def decode(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1e6, width=32),
    )
)
def test_16_bit_disparity_comes_back_to_half_a_step(values):
    encoded = outputs.encode_png16(values, is_metric=False)
    decoded, is_metric = outputs.decode_png16(io.BytesIO(encoded))
    assert not is_metric and decoded.dtype == np.float32
    step = values.max() / 65535
    np.testing.assert_allclose(decoded, values, rtol=2e-7, atol=0.5001 * step)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 255, width=32),
    )
)
def test_16_bit_depth_comes_back_to_half_a_step_and_0_stays_apart(depth_m):
    decoded, is_metric = outputs.decode_png16(
        io.BytesIO(outputs.encode_png16(depth_m, is_metric=True))
    )
    assert is_metric
    far = depth_m > 1 / 512
    np.testing.assert_allclose(decoded[far], depth_m[far], atol=0.5001 / 256, rtol=0)
    np.testing.assert_array_equal(decoded > 0, depth_m > 0)


def test_metric_depth_is_in_the_form_of_kitti():
    depth_m = np.array([[0.0, 1.0, 80.0, 300.0]], np.float32)
    image = Image.open(io.BytesIO(encode("png16", depth_m, is_metric=True)))
    assert image.mode.startswith("I;16")
    np.testing.assert_array_equal(np.asarray(image), [[0, 256, 80 * 256, 65535]])
    assert image.text == {"kind": "depth_m", "step": "0.00390625"}


def test_disparity_uses_all_16_bits():
    pixels = decode(encode("png16"))
    assert pixels.dtype == np.uint16 and pixels.max() == 65535


def test_a_16_bit_file_of_others_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DavError, match=r"a\.png does not say"):
        outputs.decode_png16(tmp_path / "a.png")


def test_npy_is_the_map_itself():
    loaded = np.load(io.BytesIO(encode("npy")))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, RAMP)


@pytest.mark.parametrize("colormap", viz.COLORMAPS)
@pytest.mark.parametrize("is_metric", [False, True])
def test_near_is_warm_or_bright_in_every_colormap(colormap, is_metric):
    colors = decode(encode("color", is_metric=is_metric, colormap=colormap)).astype(int)
    top, bottom = colors[0, 0], colors[-1, -1]
    near, far = (top, bottom) if is_metric else (bottom, top)
    warmth = {"spectral", "turbo"}
    assert near[0] - near[2] > far[0] - far[2] if colormap in warmth else near.sum() > far.sum()


def test_the_two_kinds_of_map_look_alike():
    np.testing.assert_array_equal(
        decode(encode("color", RAMP)), decode(encode("color", 1 / RAMP, is_metric=True))
    )


def test_one_outlier_does_not_spoil_the_colours():
    spoilt = RAMP.copy()
    spoilt[30, 40] = 1e6
    usual, robust = decode(encode("color")), decode(encode("color", spoilt))
    difference = np.abs(usual.astype(int) - robust)
    difference[30, 40] = 0
    assert difference.max() < 12


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_map_without_relief_can_be_written(value):
    flat = np.full((5, 6), value, np.float32)
    for kind in outputs.ENDINGS:
        assert encode(kind, flat)
    assert (outputs.decode_png16(io.BytesIO(encode("png16", flat)))[0] == value).all()


@pytest.mark.parametrize("kind", outputs.ENDINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(kind, value):
    values = RAMP.copy()
    values[3, 3] = value
    with pytest.raises(DavError, match="not finite"):
        encode(kind, values)


def test_side_by_side_is_the_photograph_and_the_colours():
    photo = np.full((60, 80, 3), (200, 30, 60), np.uint8)
    both = decode(encode("side_by_side", preview=photo)).astype(int)
    assert both.shape == (60, 160, 3)
    assert np.abs(both[:, :76] - photo[:, :76]).max() < 8
    assert np.abs(both[:, 84:] - decode(encode("color"))[:, 4:]).mean() < 6


def test_a_preview_is_bounded_and_keeps_its_shape():
    assert outputs.make_preview(np.zeros((300, 4096, 3), np.uint8)).shape == (150, 2048, 3)
    small = np.zeros((30, 40, 3), np.uint8)
    assert outputs.make_preview(small) is small
    assert decode(encode("side_by_side", np.zeros((9, 30), np.float32), preview=small)).shape == (
        30,
        80,
        3,
    )


def test_pictures_of_its_own_are_no_input(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "link").symlink_to(out)
    with outputs.recording(str(out), SETTINGS, {}) as record:
        record("a/b", str(tmp_path / "b.jpg"), None, ("color",))
    is_result = outputs.ResultFinder()
    assert is_result(str(out / "a" / "b_color.png"))
    assert is_result(str(tmp_path / "link" / "a" / "b_color.png"))
    assert not is_result(str(out / "a" / "b.png"))
    assert not is_result(str(out / "a" / "b_depth16.png"))  # somebody else's
    assert not is_result(str(tmp_path / "outer" / "b_color.png"))


FOREIGN = [{"a": 1}, [1], {"map": 3, "image": "a.jpg", "saved": ["color"]}]
FOREIGN += [{"map": "x", "image": "a.jpg", "saved": "color"}, {"map": "x", "image": "a.jpg"}]
FOREIGN += [{"map": "x", "image": "a.jpg", "saved": ["color", kind]} for kind in (1, [], "gif")]


@pytest.mark.parametrize("line", FOREIGN)
def test_a_record_of_others_claims_no_picture_and_is_not_added_to(tmp_path, line):
    (tmp_path / "maps.jsonl").write_text(json.dumps(line) + "\n")
    assert not outputs.ResultFinder()(str(tmp_path / "x_color.png"))
    for overwrite in (False, True):
        with pytest.raises(
            ConfigError, match=r"maps\.jsonl was not written by dav; choose another"
        ):
            outputs.read_made(tmp_path, SETTINGS, overwrite=overwrite)


def test_a_record_above_the_photographs_that_is_no_json_is_no_matter(tmp_path):
    (tmp_path / "maps.jsonl").write_text("north south\n")
    assert not outputs.ResultFinder()(str(tmp_path / "x_color.png"))


@pytest.mark.parametrize("content", ["[1]", "3", '{"mine": 1}'])
@pytest.mark.parametrize("has_maps", [False, True])
def test_settings_of_others_are_not_written_over(tmp_path, content, has_maps):
    with outputs.recording(tmp_path, SETTINGS, {}) as record:
        if has_maps:
            record("a", "/photos/a.jpg", None, ("color",))
    (tmp_path / "predict.json").write_text(content)
    with pytest.raises(ConfigError, match=r"predict\.json was not written by dav; choose another"):
        outputs.read_made(tmp_path, SETTINGS, overwrite=True)


def test_what_an_overwriting_run_left_undone_is_still_its_own(tmp_path):
    out, image = str(tmp_path), str(tmp_path / "a.jpg")
    with outputs.recording(out, SETTINGS, {"a": outputs.Made(image, frozenset({"npy"})).void()}):
        pass
    (tmp_path / "a.npy").touch()
    made = outputs.read_made(out, SETTINGS, overwrite=False)
    outputs.check_foreign(out, ["a"], ("npy",), made)
    assert not outputs.is_made(out, "a", image, ("npy",), made)
    with pytest.raises(ConfigError, match="nothing says how it was made"):
        outputs.check_foreign(out, ["a"], ("npy",), {})


def test_settings_of_a_folder_without_maps_bind_nobody(tmp_path):
    with outputs.recording(str(tmp_path), SETTINGS, {}):
        pass
    assert outputs.read_made(str(tmp_path), SETTINGS | {"size_px": 14}, overwrite=False) == {}


def test_the_record_survives_and_adds_up(tmp_path):
    out, image = str(tmp_path / "out"), str(tmp_path / "photos" / "a.jpg")
    os.makedirs(out)
    with outputs.recording(out, SETTINGS, {}) as record:
        record("a", image, (7, 1), ("color",))
        record("a", image, (7, 1), ("npy",))
    with open(os.path.join(out, "maps.jsonl"), "a") as file:
        file.write('{"map": "b", "im')  # torn by a kill
    made = outputs.read_made(out, SETTINGS, overwrite=False)
    assert made == {"a": outputs.Made(image, frozenset({"color", "npy"}), stamp=(7, 1))}
    with outputs.recording(out, SETTINGS, made) as record:
        record("c", image, (7, 1), ("npy",))
    assert set(outputs.read_made(out, SETTINGS, overwrite=False)) == {"a", "c"}


def test_a_record_without_size_and_time_of_the_photograph_counts(tmp_path):
    """As older versions wrote it; lines of both kinds add up."""
    image = tmp_path / "a.jpg"
    image.write_bytes(b"1")
    line = {"map": "a", "image": "a.jpg", "saved": ["npy"]}
    (tmp_path / "maps.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "a.npy").touch()
    made = outputs.read_made(tmp_path, SETTINGS, overwrite=False)
    assert outputs.is_made(tmp_path, "a", str(image), ("npy",), made)
    with outputs.recording(tmp_path, SETTINGS, made) as record:
        record("a", str(image), outputs.stamp_of(image), ("color",))
    (tmp_path / "a_color.png").touch()
    made = outputs.read_made(tmp_path, SETTINGS, overwrite=False)
    assert outputs.is_made(tmp_path, "a", str(image), ("npy", "color"), made)
    image.write_bytes(b"22")
    assert not outputs.is_made(tmp_path, "a", str(image), ("npy",), made)


def test_done_means_recorded_from_this_image_and_there(tmp_path):
    made = {"a": outputs.Made("/photos/a.jpg", frozenset({"color", "npy"}))}

    def is_made(path="/photos/a.jpg", kinds=("color",)):
        return outputs.is_made(tmp_path, "a", path, kinds, made)

    assert not is_made()
    (tmp_path / "a_color.png").touch()
    assert is_made() and not is_made(kinds=("color", "npy")) and not is_made("/others/a.jpg")
    (tmp_path / "a_depth16.png").touch()
    assert not is_made(kinds=("png16",))


def test_other_settings_need_another_folder(tmp_path):
    with outputs.recording(tmp_path, SETTINGS | {"colormap": "magma"}, {}) as record:
        record("a", "/photos/a.jpg", None, ("color",))
    other = SETTINGS | {"size_px": 252}
    with pytest.raises(ConfigError, match="size_px 518 instead of 252; choose another --out"):
        outputs.read_made(tmp_path, other, overwrite=False)
    assert not outputs.read_made(tmp_path, other, overwrite=True)["a"].saved
    assert "a" in outputs.read_made(tmp_path, SETTINGS, overwrite=False)  # no pictures wanted
    with pytest.raises(ConfigError, match="colormap magma instead of grey"):
        outputs.read_made(tmp_path, SETTINGS | {"colormap": "grey"}, overwrite=False)


def test_a_folder_is_claimed_by_one_process_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "new" / "out"
    with outputs.claim(out):
        with pytest.raises(DavError, match="another process is writing"), outputs.claim(out):
            pass
        assert out.is_dir()
    assert not out.exists()
    with outputs.claim(out):
        (out / "a.npy").touch()
    assert (out / "a.npy").exists()
