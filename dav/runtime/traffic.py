"""What a compiled program sends between devices, read from its text (HLO).

An operation inside a loop is counted once, whatever the loop does: dav's steps have collectives in
loops only with accumulation, where gradients are added on each device first. An operation that a
TPU does in pieces, while it computes, stands in the text once for each piece, and is counted once.
"""

import math
import re
from dataclasses import dataclass

import jax

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8}  # others: bits in the name
OPERATION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
PIECE_OF = re.compile(r'chain_id="(\d+)"')
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
MESH_AXES = re.compile(
    r"replica_groups=@?mesh\[([^\]]*)\](?:,\s*device_ids=\(\S*\))?\s*(?:\{([^}]*)\})?"
)
PART_OF_AXIS = re.compile(r"'?(\w+)'?:\(\d+\)(\d+)")  # 'axis':(devices before it)devices
IOTA_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
# What each device sends, as a multiple of the bytes of the whole array, over rings of n devices.
SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}


@dataclass(frozen=True)
class Collective:
    """One operation between devices. `bytes` are those of the whole array (or arrays): what an
    all-gather yields, what the others take."""

    kind: str
    bytes: int
    group: int  # devices that work together

    @property
    def sent_bytes(self):
        """Bytes that each device sends."""
        return self.bytes * SENT[self.kind](self.group)


def collectives(text, devices):
    """Every Collective in the text of a compiled program for so many devices."""
    found, computation, begun = [], "", set()
    for line in text.splitlines():
        if header := COMPUTATION.match(line.strip()):
            computation = header[1]
        if (operation := OPERATION.search(line)) is None:
            continue
        result, kind, is_start = operation.groups()
        if piece := PIECE_OF.search(line):
            if (kind, piece[1]) in begun:
                continue
            begun.add((kind, piece[1]))
        sizes = [array_bytes(*found) for found in ARRAY.findall(result)]
        group = group_size(line, devices)
        found.append(Collective(*_whole(kind, sizes, group, is_start, computation), group))
    return found


def _whole(kind, sizes, group, is_start, computation):
    """(kind, bytes of the whole arrays). What an asynchronous gather or permutation starts with is
    the pair of operand and result; on TPU a reduce-scatter is an all-reduce of which each device
    keeps its part, in a computation of that name."""
    if is_start and kind == "all-gather":
        return kind, sum(sizes[len(sizes) // 2 :])
    if is_start and kind == "collective-permute":
        return kind, sizes[0]
    if kind == "reduce-scatter":
        return kind, sum(sizes) * group
    if "all-reduce-scatter" in computation:
        return "reduce-scatter", sum(sizes)
    return kind, sum(sizes)


def array_bytes(dtype, shape):
    """('f32', '2,3') → 24."""
    size = BYTES.get(dtype)
    if size is None:
        size = int(re.search(r"\d+", dtype)[0]) / 8
    return math.ceil(size * math.prod(int(n) for n in shape.split(",") if n))


def group_size(line, devices):
    """How many devices work together; all, where the line names none. Raises ValueError for groups
    over a mesh that cannot be read: taken for groups of one, they would send nothing."""
    if axes := MESH_AXES.search(line):
        if axes[2] is None:
            raise ValueError(f"which axes of the mesh? {axes[0]}")
        sizes = dict(part.strip().split("=") for part in axes[1].replace("'", "").split(","))
        return math.prod(_axis_size(name.strip(), sizes) for name in axes[2].split(",") if name)
    for pattern in (IOTA_GROUPS, LISTED_GROUPS):
        if groups := pattern.search(line):
            return int(groups[1]) if pattern is IOTA_GROUPS else groups[1].count(",") + 1
    return devices


def _axis_size(name, sizes):
    if part := PART_OF_AXIS.fullmatch(name):
        return int(part[2])
    return int(sizes[name.strip("'")])


def sent_by_kind(found):
    """{kind: (operations, bytes that each device sends)}, of kinds that there are."""
    table = {}
    for one in found:
        count, sent = table.get(one.kind, (0, 0.0))
        table[one.kind] = count + 1, sent + one.sent_bytes
    return table


def sent_for_weights(sent):
    """Of a step's {kind: bytes}, those for weights and gradients: all but what goes from device to
    device, images for CutMix."""
    return sum(size for kind, size in sent.items() if kind != "collective-permute")


def parameter_bytes(shapes):
    """Bytes of the parameters that are split, and of the others; shapes: ShapeDtypeStructs."""
    split = whole = 0
    for leaf in jax.tree.leaves(shapes):
        size = leaf.size * leaf.dtype.itemsize
        if leaf.sharding.is_fully_replicated:
            whole += size
        else:
            split += size
    return split, whole


def expected_sent_bytes(sharded_bytes, whole_bytes, *, data, fsdp):
    """What a training step must send from each device, for gradients and weights alone.

    sharded_bytes and whole_bytes: those of the parameters split over `fsdp`, and of the others.
    Whole ones: one all-reduce of gradients over all devices. Split ones: gathered for the forward
    pass and again for the backward pass, their gradients scattered, and what each device then
    holds reduced over `data`.
    """
    devices = data * fsdp
    sent = whole_bytes * SENT["all-reduce"](devices)
    if fsdp > 1:
        sent += sharded_bytes * (2 * SENT["all-gather"](fsdp) + SENT["reduce-scatter"](fsdp))
        sent += sharded_bytes / fsdp * SENT["all-reduce"](data)
    return sent
