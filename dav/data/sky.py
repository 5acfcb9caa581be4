"""Sky masks of a data set, found by a pretrained SegFormer (arXiv 2105.15203).

    python -m dav.data.sky NAME --raw=DIR --out=MASKS        (--help says more)

MASKS/ID.png is an 8-bit grey PNG of the example's own size, 255 in the sky and 0 elsewhere; ID is
the example's id, so that `python -m dav.data.prepare NAME --raw=DIR --sky=MASKS` finds it. A pixel
is sky where the network scores sky above every other class. A mask is written whole or not at all,
and one that is there is not made again.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dav.data import storing
from dav.data.decoding import decode_image
from dav.data.frames import Skipped, Target
from dav.data.transforms import resize_image
from dav.errors import ConfigError, DavError
from dav.files import hold, read_json, write_json, write_whole
from dav.threads import in_threads

SETTINGS = "settings.json"
STRIDE_PX = 32  # of the network's coarsest features
HELD = 64  # images that wait for others of their size to make a batch
MEAN = np.float32([0.485, 0.456, 0.406])  # of the images that every SegFormer was trained on
STD = np.float32([0.229, 0.224, 0.225])
EXTRA = "finding sky needs PyTorch and transformers: pip install -e '.[sky]'"


@dataclass(frozen=True)
class Segmenter:
    """A network, the index of its class sky, and the device it is on."""

    network: object
    sky: int
    device: str


@dataclass(frozen=True)
class Photo:
    """One image as the network sees it."""

    id: str
    size: tuple  # the example's own (height, width)
    pixels: np.ndarray  # uint8 [h, w, 3] RGB


@dataclass
class Tally:
    """How far a run is."""

    items: int = 0
    made: int = 0
    already: int = 0
    broken: int = 0


def load_segmenter(spec, device=None):
    """A SegFormer from a local folder or the hub; on the first GPU, if there is one.

    Raises ConfigError for what is no whole SegFormer with a class named sky.
    """
    try:
        import torch
        import transformers
    except ImportError:
        raise ConfigError(EXTRA) from None
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(spec)
        sky = _sky_class(spec, config)
        network, loaded = transformers.SegformerForSemanticSegmentation.from_pretrained(
            spec, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--model={spec} cannot be loaded: {reason}") from None
    if loaded["missing_keys"]:
        lacking = sorted(loaded["missing_keys"])[0]
        raise ConfigError(f"--model={spec} lacks weights, {lacking} among them")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Segmenter(network.to(device).eval(), sky, device)


def _sky_class(spec, config):
    if config.model_type != "segformer":
        raise ConfigError(f"--model={spec} is of type {config.model_type}, not segformer")
    classes = [int(i) for i, name in config.id2label.items() if name.strip().lower() == "sky"]
    if len(classes) != 1:
        raise ConfigError(
            f"--model={spec} has no class named sky; one trained on ADE20K or Cityscapes has"
        )
    return classes[0]


def write_masks(frames, out, segmenter, settings, *, batch_size, short_side_px, tally, tell, note):
    """Writes the masks of `frames` (see missing_frames), and counts them in `tally`.

    `settings` is what the masks depend on, kept beside them: masks of other settings are refused.
    Images that cannot be decoded are named through `note`; `tell()` is called after each mask.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a") as lock:
        hold(lock, f"another process is writing masks to {out}; wait for it")
        _check_settings(out, settings)

        def seen():
            with in_threads(_load(short_side_px), frames) as loading:
                photos = _readable(loading, tally, note)
                for batch in batches(photos, batch_size):
                    margins = sky_margin(segmenter, np.stack([photo.pixels for photo in batch]))
                    yield from zip(batch, margins, strict=True)

        def write(job):
            photo, margin = job
            write_whole(out / f"{photo.id}.png", encode_mask(margin, photo.size))

        with in_threads(write, seen()) as writing:
            for _, written in writing:
                written.result()
                tally.made += 1
                tell()


def _check_settings(out, settings):
    path = out / SETTINGS
    if not path.exists():
        write_json(path, settings)
    elif (begun := read_json(path)) != settings:
        changed = [key for key in settings if begun.get(key) != settings[key]]
        raise ConfigError(
            f"the masks in {out} were made with another {' and '.join(changed)} "
            f"({', '.join(str(begun.get(key)) for key in changed)}); choose another --out"
        )


def missing_frames(builder, raw, items, out, tally, note):
    """The frames of work items that have no mask in `out`; items that cannot be read are named.

    Items are read one after the other, since readers may keep their files open.
    """
    for item in items:
        try:
            for frame in builder.read(raw, item):
                if isinstance(frame, Skipped):
                    continue
                if (Path(out) / f"{frame.id}.png").exists():
                    tally.already += 1
                else:
                    yield frame
        except DavError as error:
            tally.broken += 1
            note(f"no mask: {error}")
        tally.items += 1


def _load(short_side_px):
    def load(frame):
        """A frame → its Photo, upright or not as `prepare` would store it."""
        size = frame.target.values.shape if isinstance(frame.target, Target) else None
        image = frame.image
        if not isinstance(image, np.ndarray):
            stored, _ = storing.store_image(
                image, target_size=size, keep=True, short_side_px=0, quality=100
            )
            image = decode_image(stored, frame.id)
        pixels = resize_image(image, network_size(*image.shape[:2], short_side_px))
        return Photo(frame.id, image.shape[:2], pixels)

    return load


def _readable(loading, tally, note):
    for frame, result in loading:
        try:
            yield result.result()
        except DavError as error:
            tally.broken += 1
            note(f"no mask of {frame.id}: {error}")


def batches(photos, batch_size):
    """Lists of at most batch_size photos of one shape, in whatever order fills them."""
    waiting = {}
    for photo in photos:
        group = waiting.setdefault(photo.pixels.shape, [])
        group.append(photo)
        if len(group) == batch_size:
            yield waiting.pop(photo.pixels.shape)
        elif sum(len(group) for group in waiting.values()) == HELD:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def network_size(height, width, short_side_px):
    """Short side `short_side_px`, aspect kept, both sides rounded to a multiple of the stride."""
    scale = short_side_px / min(height, width) / STRIDE_PX
    return tuple(max(round(side * scale), 1) * STRIDE_PX for side in (height, width))


def sky_margin(segmenter, images):
    """By how much sky outscores the best other class: uint8 [B, h, w, 3] → float32 [B, h/4, w/4].

    Above 0 exactly where sky is the network's first choice.
    """
    import torch

    with torch.inference_mode():
        pixels = torch.from_numpy(images).to(segmenter.device).float().div_(255)
        mean, std = (torch.from_numpy(values).to(segmenter.device) for values in (MEAN, STD))
        pixels = ((pixels - mean) / std).permute(0, 3, 1, 2)
        scores = segmenter.network(pixel_values=pixels).logits
        sky = scores[:, segmenter.sky].clone()
        scores[:, segmenter.sky] = -torch.inf
        return (sky - scores.amax(dim=1)).float().cpu().numpy()


def encode_mask(margin, size):
    """Margin float32 [h, w] → PNG of uint8 [*size], 255 where it is above 0 between its samples."""
    height, width = size
    fine = cv2.resize(margin, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.imencode(".png", np.where(fine > 0, np.uint8(255), np.uint8(0)))[1].tobytes()


if __name__ == "__main__":
    from dav.sky import main

    sys.exit(main(sys.argv))
