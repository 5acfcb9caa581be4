"""Every data set that dav can build, by name."""

from dav.data.builders import (
    bdd100k,
    blended_mvs,
    diml,
    google_landmarks,
    hrwsi,
    imagenet21k,
    irs,
    lsun,
    megadepth,
    objects365,
    open_images,
    places365,
    sa1b,
    sample,
    tartanair,
)
from dav.errors import ConfigError

MODULES = (
    *(blended_mvs, diml, hrwsi, irs, megadepth, tartanair),
    *(bdd100k, google_landmarks, imagenet21k, lsun, objects365, open_images, places365, sa1b),
    sample,
)


def builders():
    """Builders by name, in order."""
    return {builder.name: builder for module in MODULES for builder in module.BUILDERS}


def can_build(name):
    """Whether dav has a builder for data set `name`."""
    return name in builders()


def builder_of(name):
    """The builder of data set `name`. Raises ConfigError for one that dav does not know."""
    if not can_build(name):
        raise ConfigError(f"dav cannot build data set {name!r}; it can: {', '.join(builders())}")
    return builders()[name]
