"""Before money is spent: what a training takes in operations, memory, hours, bytes and host cores.

Estimates from shapes, for the devices at hand or a pod that is named. What the compiler says of a
pod's memory is in plan_topology.py.
"""

import math

import jax
import numpy as np

from dav import folders, prepare, recipe, recipe_network
from dav.data import sources
from dav.errors import DavError
from dav.models.depth_anything import SIZES
from dav.runtime import perf
from dav.runtime.telemetry import format_duration

COUNTED = "counted in the data"
# Bytes of a stored image in the mean over the paper's sets of a kind: docs/data.md.
STORED_BYTES = {"labelled": 1.05e12 / 1_600_331, "unlabelled": 6.68e12 / 62_460_565}
LABEL_BYTES_PER_PX = 30.2e3 / (518 * 686)  # docs/labels.md
LANES = 128  # of a TPU: narrower maps take as much memory as maps of so many channels
# What is kept of a block under each policy of dav.models.remat, in widths of its tokens. In full:
# its input, both norms' outputs, q k v, attention, the MLP's two hidden maps, and the two branches
# before their scales; of products: the input, q k v, both branches and the MLP's first hidden map.
KEPT_WIDTHS = {"none": 17, "products": 10, "blocks": 1, "all": 1}
CROPS_PER_CORE_S = 131 * 518**2  # pixels of crops; benchmarks/results/data_limit.json


def lines(config, paths, trainer, *, peak, mfu):
    """What training the recipe costs on the trainer's mesh, in lines for people.

    peak: operations a second of all its devices, or None where it is not known.
    """
    return [
        *network_lines(config),
        *memory_lines(config, trainer),
        *time_lines(config, trainer, peak, mfu),
        *volume_lines(config, paths),
    ]


def network_lines(config):
    """Parameters and operations."""
    size, grid = SIZES[config.model.size], recipe_network.crop_grid(config)
    encoder, decoder = perf.encoder_flops(size, grid), perf.decoder_flops(size, grid)
    step = recipe.step_flops(config)
    images = sum(config.batch.values())
    return [
        f"FLOPs      {(encoder + decoder) / 1e9:,.0f} G an image forward (encoder "
        f"{encoder / 1e9:,.0f}, decoder {decoder / 1e9:,.0f}); a step of {images} images "
        f"{step / 1e12:,.1f} T, {step / images / 1e9:,.0f} G an image"
    ]


def memory_lines(config, trainer):
    """Bytes that stay on a device, and about as many as a step adds."""
    held = state_bytes(trainer.shapes)
    frozen = 0
    if folders.aligns_features(config):
        frozen = state_bytes(trainer.shapes.params["encoder"])
    gradients = state_bytes(trainer.shapes.params)
    images = math.ceil(sum(config.batch.values()) / trainer.mesh.size / config.accumulate)
    lanes = LANES if trainer.mesh.devices.flat[0].platform == "tpu" else 1
    activations = images * activation_bytes(config, lanes)
    total = held + frozen + gradients + activations
    return [
        f"a device   {images} images at a time; state {gib(held)}, frozen encoder {gib(frozen)}, "
        f"gradients {gib(gradients)}, activations about {gib(activations)}: about {gib(total)}"
    ]


def state_bytes(tree):
    """Bytes on one device of a tree of placed ShapeDtypeStructs."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def activation_bytes(config, lanes=1):
    """About what one image's forward pass leaves for its backward pass, attention by a kernel that
    keeps no logits, channels padded to multiples of `lanes`. The compiler may keep less, computing
    cheap values again, or more, for copies: docs/pods.md has both.
    """
    item = np.dtype(recipe_network.DTYPES[config.model.dtype]).itemsize
    return encoder_activations(config) * item + decoder_activations(config, item, lanes)


def encoder_activations(config):
    """Values that are kept of an image's tokens; one block at a time is there in full."""
    size, (rows, columns) = SIZES[config.model.size], recipe_network.crop_grid(config)
    kept = KEPT_WIDTHS[config.model.remat] * size.blocks
    if config.model.remat != "none":
        kept += KEPT_WIDTHS["none"]
    return kept * (rows * columns + 1) * size.width


def decoder_activations(config, item, lanes):
    """Bytes that are kept of an image's maps; `item` are those of a value of the network."""

    def padded(channels):
        return -(-channels // lanes) * lanes

    size, (rows, columns) = SIZES[config.model.size], recipe_network.crop_grid(config)
    areas = [factor * rows * columns for factor in (16, 4, 1, 0.25)]
    maps = sum(area * padded(wide) for area, wide in zip(areas, size.reassemble, strict=True))
    features = padded(size.features)
    # A residual unit keeps its input, two ReLUs and what is between them; the deepest fusion has
    # one, the others two. Beside it stand its inputs and the resized map.
    units = [area * features * (9 if i < 3 else 5) for i, area in enumerate(areas)]
    borders = sum(area * features * 4 for area in areas)
    pixels = config.crop_px[0] * config.crop_px[1]
    head = pixels * (padded(size.features // 2) + 2 * padded(32) + 4) * 4  # float32 always
    if config.model.remat == "all":  # one stage at a time
        return (maps + borders) * item + max(head, units[0] * item)
    return (maps + borders + sum(units)) * item + head


def time_lines(config, trainer, peak, mfu):
    """Steps, images, hours at an MFU, and what the hosts must decode."""
    images = sum(config.batch.values())
    lines = [f"training   {config.steps:,} steps, {config.steps * images:,} images"]
    if peak is None:
        kind = trainer.mesh.devices.flat[0].device_kind
        return [*lines, f"time       not told: the peak rate of {kind} is not known to dav"]
    seconds = config.steps * recipe.step_flops(config) / (peak * mfu)
    rate = images / (recipe.step_flops(config) / (peak * mfu))
    devices = trainer.mesh.size
    cores = rate / devices * math.prod(config.crop_px) / CROPS_PER_CORE_S
    return [
        *lines,
        f"time       {format_duration(seconds)} at {mfu:.0%} MFU, "
        f"{seconds * devices / 3600:,.0f} device-hours on {devices} devices",
        f"hosts      {rate:,.0f} images/s in all, {rate / devices:,.1f} a device: about "
        f"{cores:.1f} cores of decoding each",
    ]


def volume_lines(config, paths):
    """Bytes of images and labels. Raises DavError for a shard of images that is missing."""
    lines = []
    for kind in config.batch:
        images, origin = count_images(config, paths, kind)
        if origin == COUNTED:
            stored = giga(stored_bytes(shard_counts(config, paths, kind)))
            lines.append(f"data       {kind}: {images:,} images, {stored}, {origin}")
        elif images:
            stored = giga(images * STORED_BYTES[kind])
            lines.append(f"data       {kind}: {images:,} images, {origin}, about {stored} stored")
    if folders.uses_labels(config) and (images := count_images(config, paths, "unlabelled")[0]):
        short_px = config.label_short_side_px
        size = images * LABEL_BYTES_PER_PX * short_px * short_px * 4 / 3
        lines.append(f"labels     {images:,} of about 4:3 at {short_px} px, about {giga(size)}")
    return lines


def stored_bytes(shards):
    """Bytes of these files together. Raises DavError for one that is missing."""
    try:
        return sum(path.stat().st_size for path in shards)
    except FileNotFoundError as error:
        raise DavError(f"{error.filename} is missing; {sources.REBUILD}") from None


def count_images(config, paths, kind):
    """(number, where it is from) of a kind's training images: counted, else the config's."""
    names = config.data[kind]
    if not set(names) & set(prepare.missing_sets(config, paths)):
        return sum(shard_counts(config, paths, kind).values()), COUNTED
    if "images" in config and kind in config.images:
        return config.images[kind], "as the paper counts them"
    return 0, ""


def shard_counts(config, paths, kind):
    """{path: records} of the training shards of a kind's data sets."""
    counts = {}
    for name in config.data[kind]:
        counts |= sources.shard_counts(paths.data, name, "train")
    return counts


def giga(size):
    """Bytes for people: 1.9 TB, 35 GB, 12 MB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 100 * unit else f"{size / unit:.0f} {name}"
    return f"{size / 1e6:.1f} MB"


def gib(size):
    """Bytes of memory for people."""
    return f"{size / 2**30:.2f} GiB"
