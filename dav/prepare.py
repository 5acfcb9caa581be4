"""The preparation job: builds every data set that the recipe reads and that is not there."""

from dav import recipe
from dav.data import prepare as builders
from dav.errors import ConfigError
from dav.runtime.telemetry import Progress


def prepare(config, paths):
    """Builds the missing data sets, checks the others' checksums, and repairs damaged ones."""
    check_root(config, paths)
    names, complete = recipe.data_set_names(config), not missing_sets(config, paths)
    with Progress("data sets", len(names)) as progress:
        for done, name in enumerate(names):
            unlabelled = name in config.data.get("unlabelled", ())
            shards = config.data.unlabelled_shards if unlabelled else None
            builders.prepare(paths.data, name, shards=shards or None)
            progress.update(done + 1, name, unit="sets")
    if complete:
        print("data: every set was there and has been checked, nothing left to do")


def missing_sets(config, paths):
    """The data sets that are not prepared yet."""
    return [n for n in recipe.data_set_names(config) if builders.find(paths.data, n) is None]


def check_root(config, paths):
    """A recipe that needs other people's data must be told where it is."""
    foreign = [name for name in missing_sets(config, paths) if not builders.can_build(name)]
    if not foreign:
        return
    where = f"not found in {paths.data}" if config.data.root else "config.data.root is empty"
    raise ConfigError(
        f"preset {config.preset!r} reads data sets that dav cannot make by itself ({where}): "
        f"{', '.join(foreign)}. Prepare each as a TFDS data set of ArrayRecord files in "
        "ROOT/NAME/VERSION/, its records as dav/data/examples.py describes them, and pass "
        "--config.data.root=ROOT"
    )
