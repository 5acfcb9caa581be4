"""The preparation job: builds every data set that the recipe reads and that is not there."""

from dav import recipe
from dav.data import prepare as builders
from dav.errors import ConfigError
from dav.runtime.telemetry import Progress


def prepare(config, paths):
    """Builds the missing data sets, checks the others' checksums, and repairs damaged ones."""
    check_root(config, paths)
    names = recipe.data_set_names(config)
    progress = Progress("data sets", len(names))
    for done, name in enumerate(names):
        unlabelled = name in config.data.get("unlabelled", ())
        shards = config.data.unlabelled_shards if unlabelled else None
        builders.prepare(paths.data, name, shards=shards or None)
        progress.update(done + 1, name, unit="sets")
    progress.close()


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
        f"{', '.join(foreign)}. Prepare each as ROOT/NAME/VERSION/ in dav's record form "
        "(dav/data/examples.py) and pass --config.data.root=ROOT"
    )
