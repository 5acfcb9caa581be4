"""The training step compiled for a TPU pod that is not there: does it fit, and what does it send?

Compiling takes minutes on a small machine; the network is the real one, on the pod's own mesh.
"""

import time
from dataclasses import dataclass

import jax
import numpy as np

from dav import folders
from dav.plan_costs import gib
from dav.runtime import parallel, topology, traffic
from dav.runtime.telemetry import format_duration


@dataclass(frozen=True)
class Verdict:
    """What the compiler says of one step on one pod; bytes are of one chip."""

    pod: topology.Pod
    fits: bool
    needed_bytes: int  # of HBM: arguments, temporaries and outputs that alias nothing
    argument_bytes: int | None  # state, frozen encoder and batch; None where it does not fit
    temporary_bytes: int | None
    code_bytes: int | None  # about, for it is compiled quickly: topology.PROGRAM_IN_FULL
    collectives: tuple  # of traffic.Collective
    seconds: float  # of compiling


def compile_step(config, trainer, pod):
    """Verdict on the training step of a trainer made for the pod's devices."""
    begin = time.monotonic()
    lowered = trainer.step.lower(*arguments(config, trainer))
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = topology.needed_bytes(error)
        if needed is None:
            raise
        seconds = time.monotonic() - begin
        return Verdict(pod, False, int(needed), None, None, None, (), seconds)
    memory = program.memory_analysis()
    code_bytes = topology.PROGRAM_IN_FULL * memory.generated_code_size_in_bytes
    needed = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + code_bytes
    )
    return Verdict(
        pod,
        needed <= pod.hbm_bytes,
        needed,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        code_bytes,
        tuple(traffic.collectives(program.as_text(), len(pod.devices))),
        time.monotonic() - begin,
    )


def arguments(config, trainer):
    """The step's arguments as shapes: state, frozen encoder, batch."""
    frozen = trainer.shapes.params["encoder"] if folders.aligns_features(config) else ()
    split = parallel.batch_sharding(trainer.mesh)

    def part(images):
        shape = (images, *config.crop_px)
        fields = {"disparity": (shape, np.float32), "valid": (shape, np.bool_)}
        fields["image"] = ((*shape, 3), np.uint8)
        return {k: jax.ShapeDtypeStruct(*v, sharding=split) for k, v in fields.items()}

    batch = {kind: part(images) for kind, images in config.batch.items()}
    return trainer.shapes, frozen, batch


def lines(verdict):
    """The verdict for people."""
    pod, needed = verdict.pod, gib(verdict.needed_bytes)
    chips = f"{len(pod.devices)} chips on {pod.hosts} hosts"
    head = f"pod        {pod.name}: {chips}, compiled in {format_duration(verdict.seconds)}"
    limit = gib(pod.hbm_bytes)
    if not verdict.fits:
        return [
            head,
            f"memory     does not fit: a chip would need {needed} of {limit}; try a smaller "
            "config.batch, config.accumulate=2, config.model.remat=products or config.mesh.fsdp=8",
        ]
    parts = {
        "state, frozen encoder and batch": verdict.argument_bytes,
        "temporaries": verdict.temporary_bytes,
        "program": verdict.code_bytes,
    }
    shown = ", ".join(f"{name} {gib(size)}" for name, size in parts.items())
    sent = [
        f"{kind} ×{count} {size / 1e6:,.1f} MB"
        for kind, (count, size) in sorted(traffic.sent_by_kind(verdict.collectives).items())
    ]
    return [
        head,
        f"memory     fits: {needed} of {limit} a chip ({shown})",
        f"traffic    each chip sends in a step: {'; '.join(sent) or 'nothing'}",
    ]
