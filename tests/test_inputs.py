"""Which files an input stands for, and what their results are called."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dav.errors import ConfigError
from dav.inputs import find_images, name_maps


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of images, as far as their names go; the current folder is its parent."""
    for name in ("b.jpg", "a.PNG", "deep/er/c.tiff", "deep/d.webp", ".hidden.jpg", ".git/e.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def below(inputs, **options):
    """The found files' paths below their inputs."""
    found = find_images(inputs, **options)
    assert all(os.path.isabs(path) and os.path.lexists(path) for path, _ in found)
    return [relative for _, relative in found]


def test_a_folder_is_searched_for_images_in_order(photos):
    assert below(["photos"]) == ["a.PNG", "b.jpg", "deep/d.webp", "deep/er/c.tiff"]
    assert below([str(photos) + "/"]) == below(["photos"]) == below(["photos/../photos/."])


def test_a_named_file_counts_whatever_its_suffix(photos):
    assert below(["photos/notes.txt", "photos/.hidden.jpg"]) == ["notes.txt", ".hidden.jpg"]


def test_each_file_comes_once_and_its_first_input_counts(photos):
    assert below(["photos/deep", "photos", "photos/b.jpg", photos / "b.jpg"]) == [
        "d.webp",
        "er/c.tiff",
        "a.PNG",
        "b.jpg",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["b.jpg"]),
        ("photos/*", ["a.PNG", "b.jpg", "deep/d.webp", "deep/er/c.tiff"]),
        ("photos/**/*.tiff", ["deep/er/c.tiff"]),
        ("**/*.webp", ["photos/deep/d.webp"]),
        ("photos/*/d.*", ["deep/d.webp"]),
        ("photos/*.txt", ["notes.txt"]),
        ("phot?s", ["photos/a.PNG", "photos/b.jpg", "photos/deep/d.webp", "photos/deep/er/c.tiff"]),
    ],
)
def test_globs(photos, pattern, expected):
    assert below([pattern]) == expected


def test_a_file_that_looks_like_a_glob_is_a_file(photos):
    (photos / "b[1].jpg").touch()
    assert below(["photos/b[1].jpg"]) == ["b[1].jpg"]


def test_links_are_followed_and_loops_end(photos):
    (photos / "deep" / "loop").symlink_to(photos)
    (photos / "other").symlink_to(photos.parent / "elsewhere")
    (photos.parent / "elsewhere").mkdir()
    (photos.parent / "elsewhere" / "z.bmp").touch()
    assert below(["photos"])[-1] == "other/z.bmp" and len(below(["photos"])) == 5


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["photos", "nowhere/*.jpg"], r"nowhere/\*.jpg holds no image"),
        (["empty"], "empty holds no image; known suffixes: .avif .bmp"),
        (["photos/*.gif"], "holds no image"),
    ],
)
def test_nothing_to_do_is_one_sentence(photos, inputs, message):
    with pytest.raises(ConfigError, match=message):
        find_images(inputs)


def test_what_is_left_out_is_no_image(photos):
    with pytest.raises(ConfigError, match="photos holds no image"):
        find_images(["photos"], leave_out=lambda path: True)
    assert below(["photos"], leave_out=lambda path: path.endswith("b.jpg"))[0] == "a.PNG"


def test_names_are_the_paths_without_suffix():
    images = [("/p/a.jpg", "a.jpg"), ("/p/deep/b.c.png", "deep/b.c.png")]
    assert name_maps(images, {}) == {"/p/a.jpg": "a", "/p/deep/b.c.png": "deep/b.c"}


def test_one_stem_with_two_suffixes_keeps_both():
    images = [("/p/a.jpg", "a.jpg"), ("/p/a.png", "a.png"), ("/p/b.png", "b.png")]
    assert list(name_maps(images, {}).values()) == ["a.jpg", "a.png", "b"]


def test_two_folders_with_the_same_names_are_told_apart():
    images = [("/x/left/1.png", "1.png"), ("/x/right/1.png", "1.png"), ("/x/left/2.png", "2.png")]
    assert list(name_maps(images, {}).values()) == ["left/1", "right/1", "2"]
    images = [("/x/left/p/1.png", "1.png"), ("/x/right/p/1.png", "1.png")]
    assert list(name_maps(images, {}).values()) == ["left/p/1", "right/p/1"]


def test_names_given_before_stay():
    taken = {"1": "/x/left/1.png"}
    images = [("/x/right/1.png", "1.png")]
    assert name_maps(images, taken) == {"/x/right/1.png": "1.png"}
    both = [("/x/left/1.png", "1.png"), *images]
    assert name_maps(both, taken) == {"/x/left/1.png": "1", "/x/right/1.png": "1.png"}
    assert name_maps([("/x/left/1.png", "left/1.png")], taken) == {"/x/left/1.png": "1"}


PARTS = st.lists(st.sampled_from(["a", "b", "a.x", "b.x"]), min_size=1, max_size=4)


@given(
    st.lists(st.tuples(PARTS, st.integers(1, 4)), max_size=12),
    st.dictionaries(PARTS.map("/".join), PARTS.map(lambda p: "/" + "/".join(p)), max_size=6),
)
def test_names_are_unique_and_never_another_image_s(images, taken):
    images = list({"/" + "/".join(p): "/".join(p[-depth:]) for p, depth in images}.items())
    names = name_maps(images, taken)
    assert set(names) == {path for path, _ in images}
    assert len(set(names.values())) == len(names)
    for path, name in names.items():
        assert taken.get(name, path) == path


def test_a_name_that_no_file_system_takes_is_cut():
    long = "ä" * 120 + ".jpg"
    first, second = name_maps([(f"/p/{long}", long), (f"/q/{long}", "x" + long)], {}).values()
    assert first != second
    assert all(len(os.fsencode(name)) < 225 for name in (first, second))


def test_a_glob_of_any_depth_meets_each_folder_once_whatever_links_there_are(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x.jpg", "a/y.jpg", "a/b/z.jpg", "a/b/z.txt", "a/.hidden.jpg"):
        (tmp_path / name).touch()
    for name in ("l1", "l2", "a/l3"):
        (tmp_path / name).symlink_to(tmp_path)

    def found(pattern):
        return sorted(relative for _, relative in find_images([str(tmp_path / pattern)]))

    assert found("**/*.jpg") == ["a/b/z.jpg", "a/y.jpg", "x.jpg"]
    assert found("a/**/*.jpg") == ["b/z.jpg", "l3/x.jpg", "y.jpg"]
    assert found("**/b/*.jpg") == ["a/b/z.jpg"]
    assert found("**/[xy].*") == ["a/y.jpg", "x.jpg"]
