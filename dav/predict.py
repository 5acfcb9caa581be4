"""Depth of photographs: files, folders or globs in, maps and pictures out.

A folder is searched with all its subfolders; a glob in quotes may hold ** for any depth. What is
in DIR already is not made again unless its image changed, so the same command continues where it
stopped. Images that cannot be read are named and skipped.

examples:
  python -m dav.predict photo.jpg --weights=model.safetensors --out=depth
  python -m dav.predict photos 'more/**/*.png' --weights=hf:org/name --out=depth --save=npy,color
  python -m dav.predict photos --weights=runs/student-mini --out=depth --save=side_by_side
"""

import argparse
import sys
import warnings

from dav.errors import ConfigError
from dav.failure import INTERRUPTED, explain, fail
from dav.files import local_path
from dav.runtime import streams
from dav.runtime.interrupts import stop_request

USAGE = "python -m dav.predict INPUT... --weights=SPEC --out=DIR [OPTION...]"
WEIGHTS_HELP = "a work folder, .safetensors, .pth, or hf:org/name[@revision]"
SAVE_HELP = """color: a picture, near is warm; side_by_side: photograph and picture; npy: float32
    numbers; png16: 16-bit grey with its scale inside, for metric weights 1/256 m; several with
    commas (default: color)"""
BUCKETS_HELP = """round aspect ratios by up to 4 %%, so that a folder of many different shapes
    compiles for few"""
SIZE_HELP = """short side that the network sees, in pixels (default: that of its training, 518 for
    the releases)"""
EXIT_CODES = """exit codes: 0 done; 1 some images could not be read, or anything else failed;
2 wrong usage; 75 stopped on request, start again to continue"""


def main(argv):
    """Runs one command; returns its exit code."""
    streams.prepare()
    warnings.filterwarnings("ignore", module="PIL")  # what matters is an error here
    try:
        options = parse(argv[1:])
        with stop_request() as stop:  # an interrupt at any point could get lost in a library
            from dav.predict_run import predict

            return predict(options, stop)
    except KeyboardInterrupt:
        return fail(INTERRUPTED, 75)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return explain(error, "--out")


def parse(arguments):
    """Command line → options. Raises ConfigError for what makes no sense."""
    from dav import viz

    parser = argparse.ArgumentParser(
        usage=USAGE,
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = refuse_usage
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image file, folder or glob")
    add("--weights", required=True, metavar="SPEC", help=WEIGHTS_HELP)
    add("--out", required=True, metavar="DIR", help="where the results go")
    add("--save", type=parse_kinds, default=("color",), metavar="KIND,...", help=SAVE_HELP)
    add("--colormap", choices=viz.COLORMAPS, default="spectral", help="default: %(default)s")
    add("--size_px", type=int, metavar="N", help=SIZE_HELP)
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    add("--batch_size", type=int, metavar="N", help="images at once (default: by the device)")
    add("--aspect_buckets", action="store_true", help=BUCKETS_HELP)
    add("--overwrite", action="store_true", help="make anew what is there already")
    add(
        "--cache_dir",
        metavar="DIR",
        help="for compiled programs (default: the user's cache)",
    )
    add("--no_cache", action="store_true", help="keep no compiled programs")
    options = parser.parse_args(arguments)
    if not options.out:
        raise ConfigError("--out is empty; name a folder")
    options.out = str(local_path(options.out))
    if options.batch_size is not None and options.batch_size < 1:
        raise ConfigError(f"--batch_size={options.batch_size} must be at least 1")
    return options


def refuse_usage(message):
    raise ConfigError(f"{message} (--help shows the usage)")


def parse_kinds(text):
    """'color,npy' → ('color', 'npy')."""
    from dav import outputs

    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [kind for kind in kinds if kind not in outputs.ENDINGS]:
        known = ", ".join(outputs.ENDINGS)
        raise argparse.ArgumentTypeError(f"unknown kind {unknown[0]!r}; known: {known}")
    return kinds


if __name__ == "__main__":
    sys.exit(main(sys.argv))
