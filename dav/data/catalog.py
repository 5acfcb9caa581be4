"""Every data set that dav can build, by name."""

from dav.data.builders import (
    bdd100k,
    blended_mvs,
    da2k,
    ddad,
    diml,
    diode,
    eth3d,
    folder,
    google_landmarks,
    hrwsi,
    hypersim,
    ibims1,
    imagenet21k,
    irs,
    kitti,
    lsun,
    megadepth,
    middlebury,
    nyuv2,
    objects365,
    open_images,
    places365,
    sa1b,
    sample,
    seven_scenes,
    sintel,
    sunrgbd,
    tartanair,
    tum_rgbd,
    virtual_kitti2,
)
from dav.errors import ConfigError

MODULES = (
    *(blended_mvs, diml, hrwsi, irs, megadepth, tartanair),
    *(bdd100k, google_landmarks, imagenet21k, lsun, objects365, open_images, places365, sa1b),
    *(kitti, nyuv2, sintel, ddad, eth3d, diode, da2k),
    *(sunrgbd, ibims1, hypersim, virtual_kitti2),
    *(tum_rgbd, seven_scenes, middlebury),
    sample,
)
OWN = "folder/"


def builders():
    """Builders by name, in order."""
    return {builder.name: builder for module in MODULES for builder in module.BUILDERS}


def can_build(name):
    """Whether dav has a builder for data set `name`."""
    return name in builders() or _is_own(name)


def _is_own(name):
    return name.startswith(OWN) and len(name) > len(OWN)


def builder_of(name):
    """The builder of data set `name`. Raises ConfigError for one that dav does not know."""
    if not can_build(name):
        raise ConfigError(
            f"dav cannot build data set {name!r}; it can: {', '.join(builders())}, and folder/NAME "
            "for your own images"
        )
    return folder.make(name) if _is_own(name) else builders()[name]
