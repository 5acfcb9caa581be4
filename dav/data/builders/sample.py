"""The data set that comes with dav: two labelled rooms, one unseen laboratory, photographs.

Configurations: `icl` (ICL-NUIM living room, rendered), `tum` (TUM RGB-D fr1/desk, Kinect), `lab`
(a laboratory of slambook2, Kinect; held out only), `photos` (unlabelled). Sources and licences:
dav/sample/CREDITS.md. Depth is 16-bit PNG in the source's own unit, 0 invalid; sample.csv states
the unit and every file's checksum.
"""

import csv
import hashlib
import importlib.resources

import tensorflow_datasets as tfds

from dav.data.examples import features
from dav.errors import DavError

TABLE_SHA256 = "0ea8d39a8f77274f1b5f5dd3cb215b6e31e18b148f80e27349a22f58e573c3b3"
CONFIGS = {
    "icl": "ICL-NUIM living room",
    "tum": "TUM RGB-D fr1/desk",
    "lab": "slambook2 laboratory",
    "photos": "Kodak suite and wallpapers",
}


class Sample(tfds.core.GeneratorBasedBuilder):
    """Builds one configuration from the package's own files."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=text) for name, text in CONFIGS.items()
    ]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=features(), description=__doc__, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        rows = [row for row in read_table() if row["source"] == self.builder_config.name]
        splits = sorted({row["split"] for row in rows})
        return {
            split: self._generate_examples([row for row in rows if row["split"] == split])
            for split in splits
        }

    def _generate_examples(self, rows):
        for index, row in enumerate(rows):
            yield (
                index,
                {
                    "id": f"{row['source']}/{row['id']}",
                    "image": _read(row["image"], row["image_sha256"]),
                    "target": _read(row["depth"], row["depth_sha256"]) if row["depth"] else b"",
                    "unit_m": float(row["unit_m"] or 0),
                },
            )


def read_table():
    """The rows of sample.csv as dicts."""
    return list(csv.DictReader(_read("sample.csv", TABLE_SHA256).decode().splitlines()))


def _read(name, sha256):
    path = importlib.resources.files("dav").joinpath("sample", name)
    repair = "restore it with `git checkout dav/sample`, or install dav again"
    if not path.is_file():
        raise DavError(f"the sample file {path} is missing; {repair}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DavError(f"the sample file {path} is damaged (its checksum differs); {repair}")
    return content
