"""Writes weights in the layout of another framework.

    python -m dav.export --weights=SPEC --layout=official|transformers --out=PATH [--overwrite]

SPEC is a work folder of dav, a .safetensors, a .pth, a folder of transformers, or
hf:ORGANISATION/NAME[@REVISION]. The official layout is one file, PATH.safetensors or PATH.pth; the
transformers layout is a folder that AutoModelForDepthEstimation.from_pretrained loads as it is.
Exit codes: 0 done; 2 wrong usage; 75 stopped on request; 1 anything else.
"""

import os
import sys

from dav import main as entry
from dav.files import local_path

LAYOUTS = ("official", "transformers")


def main(argv):
    """Runs one command; returns its exit code."""

    def work():
        options = parse(argv)
        entry.quieten()
        print(export(**options))

    said = "stopped; nothing was written"
    return entry.carry_out(argv, __doc__, work, interrupted=said, folder_options="--out")


def parse(argv):
    """Command line → the arguments of export. Raises ConfigError for what makes no sense."""
    from absl import flags

    from dav.errors import ConfigError

    values = flags.FlagValues()
    for name in ("weights", "layout", "out"):
        flags.DEFINE_string(name, "", "", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "", flag_values=values)
    entry.read_only_flags(values, argv, required=("weights", "layout", "out"))
    if values.layout not in LAYOUTS:
        raise ConfigError(f"unknown --layout={values.layout}; known: {', '.join(LAYOUTS)}")
    return {
        "spec": values.weights,
        "layout": values.layout,
        "out": local_path(values.out),
        "overwrite": values.overwrite,
    }


def export(spec, layout, out, *, overwrite=False):
    """Writes the weights of `spec` to `out`; returns a line that says what was written."""
    from dav.errors import ConfigError
    from dav.weights.load import load_weights
    from dav.weights.save import check_official_path, save_official, save_transformers

    if layout == "official":
        check_official_path(out)
    elif out.suffix in (".safetensors", ".pth"):
        raise ConfigError(f"--out={out} names a file, but the transformers layout is a folder")
    if os.path.exists(out) and not overwrite:
        raise ConfigError(f"--out={out} is there already; name another, or add --overwrite")
    source = os.path.abspath(os.path.expanduser(spec))
    places = [place for place in (source, os.path.dirname(source)) if os.path.exists(source)]
    if os.path.exists(out) and any(os.path.samefile(out, place) for place in places):
        raise ConfigError(f"--out={out} is where the weights come from; name another")
    weights = load_weights(spec)
    (save_official if layout == "official" else save_transformers)(out, weights)
    return describe(out, layout, weights)


def describe(out, layout, weights):
    """One line on what was written, and one on where transformers computes otherwise."""
    a = weights.architecture
    head = f"metric up to {a.max_depth_m:g} m" if a.max_depth_m else "relative"
    line = f"wrote {out} ({layout} layout): {a.blocks} blocks of width {a.width}, {head}"
    if layout == "transformers" and a.position_offset:
        side_px = 14 * a.position_grid
        line += (
            f"\ntransformers resizes positions in its own way: its maps equal those of "
            f"{weights.source} at {side_px}×{side_px} pixels, and differ slightly at other sizes"
        )
    return line


if __name__ == "__main__":
    sys.exit(main(sys.argv))
