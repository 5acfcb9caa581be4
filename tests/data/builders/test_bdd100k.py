"""BDD100K on videos written here."""

import cv2
import numpy as np
import pytest
from plain_images import put, read_all, stored

from dav.data.builders.bdd100k import BUILDERS
from dav.data.frames import Frame, Skipped
from dav.errors import DavError

(BDD,) = BUILDERS
COLOURS = [(220, 40, 30), (40, 200, 60), (30, 60, 210)]  # of frames 0–9, 10–19, 20–29
SIZE = (96, 160)


def picture(index):
    """Frame `index`: a colour every ten frames, white at the top left, its number as a bar."""
    image = np.full((*SIZE, 3), COLOURS[index // 10 % 3], np.uint8)
    image[:32, :48] = 255
    image[64:80, : 16 * (index % 10)] = 0
    return image


def film(path, frames=25):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, SIZE[::-1])
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.ascontiguousarray(picture(index)[..., ::-1]))
    writer.release()
    return path


def test_every_tenth_frame_in_rgb(tmp_path):
    folder = tmp_path / "bdd100k/videos/train"
    film(folder / "0b.mov", 21)
    film(folder / "0a-1.mov", 20)
    put(folder, {"._0b.mov": b"x", "readme.txt": b"x"})
    film(tmp_path / "bdd100k/videos/val/0c.mov", 3)
    places = ["bdd100k/videos/train/0a-1.mov", "bdd100k/videos/train/0b.mov"]
    assert BDD.plan(tmp_path) == {"train": places}
    items = read_all(BDD, tmp_path)
    assert [[frame.id for frame in item] for item in items] == [
        ["0a-1/000000", "0a-1/000010"],
        ["0b/000000", "0b/000010", "0b/000020"],
    ]
    for item in items:
        for place, frame in enumerate(item):
            assert frame.image.dtype == np.uint8 and frame.image.shape == (*SIZE, 3)
            difference = np.abs(frame.image.astype(int) - picture(10 * place))
            inside = np.zeros(SIZE, bool)
            inside[8:24, 8:40] = inside[8:88, 56:152] = True
            assert difference[inside].max() <= 24  # the codec's loss
    assert np.array_equal(stored(items[0][1])["image"], items[0][1].image)


@pytest.mark.parametrize("place", ["videos/train", "bdd100k_videos_train_00/bdd100k/videos/train"])
def test_other_places_give_the_same_ids(tmp_path, place):
    film(tmp_path / place / "0a.mov", 5)
    other = place.replace("_00/", "_01/")
    film(tmp_path / other / "0b.mov", 5)
    frames = [frame.id for item in read_all(BDD, tmp_path) for frame in item]
    assert frames == ["0a/000000", "0b/000000"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_broken_clip_is_listed_not_fatal(tmp_path, share):
    path = film(tmp_path / "videos/train/0a.mov")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    *frames, last = BDD.read(tmp_path, "videos/train/0a.mov")
    assert isinstance(last, Skipped) and last.id == "0a" and str(path) in last.reason
    assert all(isinstance(frame, Frame) for frame in frames)


def test_a_clip_that_has_gone_is_fatal(tmp_path):
    film(tmp_path / "videos/train/0a.mov", 3).unlink()
    with pytest.raises(DavError, match=r"0a.mov is missing"):
        list(BDD.read(tmp_path, "videos/train/0a.mov"))


def test_an_unfinished_download_is_named(tmp_path):
    put(tmp_path / "videos/train", {"0a.mov.part": b""})
    with pytest.raises(DavError, match=r"0a.mov.part"):
        BDD.plan(tmp_path)
