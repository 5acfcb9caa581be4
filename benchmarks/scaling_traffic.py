"""The part `traffic` of benchmarks/scaling.py: what the compiled training step sends.

Formulas, for parameters of S bytes split over `fsdp` devices and R bytes that are whole, over n
devices:

needed   what must be sent: traffic.expected_sent_bytes.
CPU      what XLA's CPU compiler makes of the step at most. It adds up gradients as all-reduces over
         the whole arrays, of which a device then keeps its part; split weights it gathers for the
         forward pass and again for the backward pass, those of the frozen encoder once. (For TPU
         it scatters.)
CutMix   each device's last image goes to the next one: three channels and a target in float32, and
         which pixels are valid; whatever the number of devices.
"""

import time

import jax
from data_records import print_table

from dav import plan_topology, recipe
from dav.main import parse
from dav.models.depth_anything import SIZES, Architecture
from dav.runtime import traffic

TINY = Architecture(64, 4, 2, (0, 1, 2, 3), 16, (8, 16, 32, 64), position_grid=4)
CROP_PX = {"tiny": (28, 42), "mini": (168, 224)}
MIN_SHARDED = {"tiny": 1000, "mini": 2**14}  # elements; most of these networks' weights
LABELLED, UNLABELLED = 1, 2  # images of each device


def measure(devices, fsdps, sizes):
    """Rows by network, fsdp and devices; the devices of this process are simulated."""
    jax.config.update("jax_num_cpu_devices", max(devices))
    jax.config.update("jax_disable_most_optimizations", True)  # halves the time, changes no byte
    SIZES["tiny"] = TINY
    rows = []
    for size in sizes:
        for fsdp in fsdps:
            rows += [row(size, n, fsdp) for n in devices]
            first = rows[-len(devices)]
            for one in rows[-len(devices) :]:
                one["to fewest"] = one["of CPU"] / first["of CPU"]
            print_table(
                f"{size}, fsdp {fsdp}: MB that each device sends in a step", rows[-len(devices) :]
            )
    return {"labelled": LABELLED, "unlabelled": UNLABELLED, "rows": rows}


def row(size, devices, fsdp):
    """What one program sends, in MB a device, and what the formulas say."""
    begin = time.monotonic()
    trainer, found = collectives(size, devices, fsdp)
    sent = {kind: bytes_ / 1e6 for kind, (_, bytes_) in traffic.sent_by_kind(found).items()}
    weights = traffic.sent_for_weights(sent)
    mesh = {"data": devices // fsdp, "fsdp": fsdp}
    split, whole = traffic.parameter_bytes(trainer.shapes.params)
    frozen, _ = traffic.parameter_bytes(trainer.shapes.params["encoder"])
    most = cpu_bytes(split, whole, frozen, **mesh) / 1e6
    return {
        "size": size,
        "devices": devices,
        "fsdp": fsdp,
        **{kind: sent.get(kind, 0.0) for kind in traffic.KINDS},
        "weights, gradients": weights,
        "CPU": most,
        "of CPU": weights / most,
        "needed": traffic.expected_sent_bytes(split, whole, **mesh) / 1e6,
        "CutMix": cutmix_bytes(CROP_PX[size]) / 1e6,
        "seconds": time.monotonic() - begin,
    }


def collectives(size, devices, fsdp, *options):
    """The trainer on so many of this process's devices, and the collectives of its step."""
    height, width = CROP_PX[size]
    config = parse(
        [
            "dav",
            "--config=configs/student.py",
            f"--config.model.size={size}",
            f"--config.batch.labelled={devices * LABELLED}",
            f"--config.batch.unlabelled={devices * UNLABELLED}",
            f"--config.crop_px=({height}, {width})",
            f"--config.mesh.fsdp={fsdp}",
            f"--config.mesh.min_sharded_elements={MIN_SHARDED[size]}",
            *options,
        ]
    )[0]
    trainer = recipe.make_trainer(config, devices=jax.devices()[:devices])
    program = trainer.step.lower(*plan_topology.arguments(config, trainer)).compile()
    return trainer, traffic.collectives(program.as_text(), devices)


def cpu_bytes(split, whole, frozen, *, data, fsdp):
    """The formula `CPU` above; `frozen` are the split bytes of the frozen encoder."""
    reduced, gathered = traffic.SENT["all-reduce"], traffic.SENT["all-gather"]
    sent = whole * reduced(data * fsdp) + split * (reduced(fsdp) + reduced(data) / fsdp)
    return sent + (2 * split + frozen) * gathered(fsdp)


def cutmix_bytes(crop_px):
    """What each device's neighbour needs of its last image."""
    return crop_px[0] * crop_px[1] * (3 * 4 + 4 + 1)
