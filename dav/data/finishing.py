"""What stands beside the shards of a finished data set: report, TFDS's metadata, checksums."""

from dataclasses import asdict
from pathlib import Path

from dav.data.frames import Builder
from dav.files import checksum, read_json, write_json

MARKER = "checksums.json"
REPORT = "report.json"
PLAN = "plan.json"


def lasting(options):
    """The options that must not change until a set is finished: those of what is stored."""
    kept = {**asdict(options), "sky": bool(options.sky)}
    del kept["skip_broken"]  # what is done had nothing broken, or lists it
    return kept


def finish(builder: Builder, raw, staged, work, options):
    """Report, TFDS's metadata, and the checksums that mark the set as finished."""
    parts = {split: [read_json(s.part) for s in group] for split, group in work.items()}
    report = {
        "name": builder.name,
        "options": lasting(options),
        "splits": {
            split: {
                "items": sum(len(shard.items) for shard in work[split]),
                "records": sum(part["records"] for part in group),
                "skipped": [line for part in group for line in part["skipped"]],
                "duplicates": sum(len(part["duplicates"]) for part in group),
            }
            for split, group in parts.items()
        },
    }
    if builder.description:
        report["description"] = builder.description(Path(raw))
    write_json(staged / REPORT, report)
    _write_metadata(builder, staged, parts)
    everything = [shard for group in work.values() for shard in group]
    sums = {shard.path.name: read_json(shard.part)["sha256"] for shard in everything}
    others = [staged / name for name in ("dataset_info.json", "features.json", REPORT, PLAN)]
    write_json(staged / MARKER, sums | {path.name: checksum(path) for path in others})


def _write_metadata(builder, staged, parts):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, file_adapters, naming

    from dav.data.examples import features

    name = builder.name.replace("/", "_")
    identity = dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version(builder.version), data_dir=str(staged), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=features(), disable_shuffling=True, description=builder.name
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[part["records"] for part in group],
            num_bytes=sum(part["bytes"] for part in group),
            filename_template=naming.ShardedFileTemplate(
                dataset_name=name, data_dir=str(staged), split=split, filetype_suffix="array_record"
            ),
        )
        for split, group in parts.items()
    ]
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(str(staged))
