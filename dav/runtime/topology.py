"""A TPU pod by name, for compiling without one (extra `tpu`: libtpu holds the compiler)."""

import os
import re
from dataclasses import dataclass

from dav.errors import ConfigError, DavError

# What libtpu 0.0.52 lets a program use of a chip's memory, by jax's name of the device, in GiB.
HBM_GIB = {"TPU v5 lite": 15.75, "TPU v5": 95.73, "TPU v6 lite": 31.24, "TPU7x": 94.74}
EXAMPLES = "v5e:16x16, v5p:4x4x4, v6e:8x8"
OUT_OF_MEMORY = re.compile(r"\(?([\d.]+)([KMGT])\)? (?:of|exceeds available HBM)")
# What a program that will never run can do without: the search for the fastest form of each matrix
# product and convolution, two thirds of the time of compiling. The student of ViT-S compiled
# both ways has the same temporaries and collectives to the byte; only the program is half as large.
QUICK_COMPILATION = (
    "--xla_jf_convolution_performance_target=0",
    "--xla_jf_fusion_max_instruction_count_for_window_config=1",
    "--xla_jf_vliw_scheduler=false",
    "--xla_jf_critical_path_scheduler=false",
    "--xla_jf_llvm_use_fast_opt=true",
)
PROGRAM_IN_FULL = 2
# jax on the CPU; libtpu neither asks a cloud's servers who it is nor minds other processes.
ENVIRONMENT = {
    "LIBTPU_INIT_ARGS": " ".join(QUICK_COMPILATION),
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Pod:
    """Devices that can be compiled for and nothing else."""

    name: str
    devices: tuple
    hosts: int
    hbm_bytes: int  # of one device, that a program may use


def prepare_environment():
    """Sets what jax and libtpu look at when they start; to be called before jax is imported."""
    os.environ |= ENVIRONMENT


def pod(name):
    """The pod of that name, as v5e:16x16: kind and chips along each axis.

    Raises ConfigError for a name that libtpu does not know or without libtpu; DavError if it
    cannot start.
    """
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise ConfigError(
            "compiling for a TPU pod needs libtpu: pip install -e '.[tpu]', in an environment of "
            "its own, for jax on a machine without a TPU starts with complaints where it is"
        ) from None
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:
        if "INVALID_ARGUMENT" in str(error) or "NOT_FOUND" in str(error):
            raise ConfigError(f"--topology={name} is not known; examples: {EXAMPLES}") from None
        raise DavError(f"libtpu cannot describe {name}: {error}") from error
    kind = devices[0].device_kind
    if kind not in HBM_GIB:
        raise ConfigError(f"--topology={name}: dav knows no memory of {kind}; use {EXAMPLES}")
    hosts = len({device.process_index for device in devices})
    return Pod(name, tuple(devices), hosts, int(HBM_GIB[kind] * 2**30))


def needed_bytes(error):
    """What a program that did not fit would have needed, from the compiler's message; None if it
    is about something else."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        return None
    hit = OUT_OF_MEMORY.search(text)
    return float(hit[1]) * UNITS[hit[2]] if hit else None
