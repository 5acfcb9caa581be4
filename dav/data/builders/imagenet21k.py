"""ImageNet-21K (Deng et al., CVPR 2009): photographs of 19,167 kinds of things.

Source: https://image-net.org/download-images, after registration: winter21_whole.tar.gz (1.1 TB,
MD5 ab313ce03179fd803a401b02c651c0a2), or single classes https://image-net.org/data/winter21_whole/.
Licence: ImageNet's terms of access; non-commercial research, no redistribution.
Count: 13.1 M in arXiv 2401.10891, which fits the winter 2021 release: 19,167 classes, of whose
images a repackaging that drops sides below 32 px keeps 13,151,276. The fall 2011 release
(fall11_whole.tar, 21,841 classes, 14,197,122 images) has the same layout and can be read too.

Expected in the raw folder, or in its subfolder winter21_whole/, for each class

    n01440764.tar                           as winter21_whole.tar.gz holds it, or
    n01440764/n01440764_10026.JPEG          unpacked

The outer archive must be unpacked (tar -xzf winter21_whole.tar.gz): its classes could only be read
one after another. Take any subset of classes. Shards of the WebDataset repackagings, whose images
have been shrunk or encoded again, are not read.

Traps: some images are CMYK, grey, PNG in spite of their name, or broken; sizes run from a few
pixels to tens of megapixels.
"""

from dav.data.frames import Builder
from dav.data.unlabelled import folder_frames, one_of, stem, tar_frames, volumes

HINT = (
    "unpack winter21_whole.tar.gz (tar -xzf winter21_whole.tar.gz), which gives one n….tar a class"
)


def plan(raw):
    """One item a class, 686 images on average."""
    folder = one_of(raw, ("winter21_whole", "."), HINT)
    found = volumes(folder, r"n\d{8}", ".tar", HINT)
    return {"train": [path.relative_to(raw).as_posix() for path in found]}


def read(raw, item):
    """A class's images; ids as n01440764/n01440764_10026."""
    path, prefix = raw / item, stem(item) + "/"
    yield from folder_frames(path, prefix) if path.is_dir() else tar_frames(path, prefix=prefix)


BUILDERS = (
    Builder(
        name="imagenet21k",
        kind="unlabelled",
        plan=plan,
        read=read,
        counts={"train": 13_100_000},
        items_per_shard=8,
        keep_images=False,
    ),
)
