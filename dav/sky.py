"""Sky masks of a data set, by a pretrained segmentation network.

    python -m dav.data.sky NAME --raw=DIR --out=MASKS [OPTION ...]

NAME and DIR are those of dav.data.prepare: the masks fit its examples, id for id and pixel for
pixel. Then prepare it with the masks:

    python -m dav.data.prepare NAME --raw=DIR --out=ROOT --sky=MASKS

Each mask is MASKS/ID.png, 255 in the sky, 0 elsewhere. Images that cannot be decoded are named and
left out. Stopped at any time, the same command continues. Needs pip install -e '.[sky]'.

    --model=SPEC       a SegFormer with a class named sky: a folder of transformers, or its name on
                       the Hugging Face hub (nvidia/segformer-b5-finetuned-ade-640-640)
    --size_px=640      short side that the network sees
    --batch_size=8     images at once
    --device=DEVICE    cuda, cuda:1, cpu, ...; by default the first GPU, if there is one

Exit codes: 0 done; 2 wrong usage; 75 stopped, run it again to continue; 1 some images could not be
decoded, or anything else failed.
"""

from dav import main as entry
from dav.errors import ConfigError, DavError
from dav.files import local_path
from dav.runtime.telemetry import Progress

# One that knows rooms too: a network of streets takes white ceilings for sky.
MODEL = "nvidia/segformer-b5-finetuned-ade-640-640"
PLAIN_EVERY_ITEMS = 1000


def main(argv):
    """Runs one command; returns its exit code."""

    def work():
        arguments = parse(argv)
        entry.quieten()
        print(find_sky(**arguments))

    return entry.carry_out(argv, __doc__, work, folder_options="--out")


def parse(argv):
    """Command line → the arguments of find_sky. Raises ConfigError for what makes no sense."""
    from absl import flags

    from dav.data import catalog

    values = flags.FlagValues()
    for name, default in (("raw", ""), ("out", ""), ("model", MODEL), ("device", "")):
        flags.DEFINE_string(name, default, "", flag_values=values)
    flags.DEFINE_integer("size_px", 640, "", 32, flag_values=values)
    flags.DEFINE_integer("batch_size", 8, "", 1, flag_values=values)
    rest = entry.read_flags(values, argv)
    if len(rest) != 1 or not values.out:
        raise ConfigError("one NAME and --out=MASKS are needed (--help shows the usage)")
    raw = local_path(values.raw) if values.raw else None
    if raw is not None and not raw.is_dir():
        raise ConfigError(f"the raw folder {raw} does not exist")
    return {
        "builder": catalog.builder_of(rest[0]),
        "raw": raw,
        "out": local_path(values.out),
        "model": values.model,
        "size_px": values.size_px,
        "batch_size": values.batch_size,
        "device": values.device or None,
    }


def find_sky(builder, raw, out, *, model=MODEL, size_px=640, batch_size=8, device=None):
    """Writes the missing masks, shows progress; returns a line that says what stands where.

    Raises DavError, after all that can be done, if images could not be decoded.
    """
    from dav.data import sky

    if raw is None and not builder.name.startswith("sample/"):
        raise ConfigError(f"{builder.name} is made from its authors' files: pass --raw=DIR")
    items = [item for split in builder.plan(raw).values() for item in split]
    segmenter = sky.load_segmenter(model, device)
    settings = {"data": builder.name, "model": model, "size_px": size_px}
    tally = sky.Tally()
    with Progress(f"sky of {builder.name}", len(items), plain_every=PLAIN_EVERY_ITEMS) as progress:
        note, tell = progress.note, _teller(progress, tally)
        sky.write_masks(
            sky.missing_frames(builder, raw, items, out, tally, note),
            *(out, segmenter, settings),
            batch_size=batch_size,
            short_side_px=size_px,
            tally=tally,
            tell=tell,
            note=note,
        )
    already = f", {tally.already} were there" if tally.already else ""
    line = f"{builder.name}: {tally.made} sky masks{already}, in {out}"
    if tally.broken:
        raise DavError(f"{line}; {tally.broken} could not be read, they are named above")
    return line


def _teller(progress, tally):
    """Work is known in items, its speed is told in images; masks that were there take no time."""
    begun_at = None

    def tell():
        nonlocal begun_at
        begun_at = tally.items - 1 if begun_at is None else begun_at
        per_item = tally.made / max(tally.items - begun_at, 1)
        progress.update(tally.items, f"{tally.made} masks", per_item=per_item)

    return tell
