"""Which network a checkpoint holds: sizes from its tensors, the rest from what stands with them.

The official files of Depth Anything V1, V2 and V2 metric have the same tensors. What tells them
apart is dav's own record, or the name under which they were released.
"""

import dataclasses
import json
import math
import re

from dav.errors import DavError
from dav.models.depth_anything import SIZES, V2_TAPS, Architecture
from dav.models.vit import PATCH_PX
from dav.weights.checkpoint import read_config
from dav.weights.convert import shown
from dav.weights.keys import LAYOUTS, make_table

HEAD_WIDTH = 64  # of every attention head in the family
TAPS = 4
# The names of the releases, file or repository, once - has become _ and capitals small ones.
RELEASED = re.compile(
    r"depth_anything_(?:vit[sbl]14|(?P<v2>v2)_(?:metric_(?P<scene>hypersim|vkitti)_)?"
    r"(?:vit[sblg]|small|base|large|giant))(?:[._](?:fp16|bf16|fp32))*(?: ?\(\d+\))?"
)
MAX_DEPTH_M = {"hypersim": 20.0, "vkitti": 80.0, None: None}
# A small network with one leaf of each name, to look the foreign names up.
PROBE = Architecture(64, 1, 1, (0,), 1, (1, 1, 1, 1), registers=1)
# What tensors do not tell, so that dav notes it.
RECORDED = ("taps", "max_depth_m", "position_offset", "position_antialias")
# What dav computes; a transformers config that says otherwise means another network.
BACKBONE_CONSTANTS = {
    "apply_layernorm": True,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "patch_size": PATCH_PX,
    "qkv_bias": True,
}
HEAD_CONSTANTS = {
    "head_in_index": -1,
    "model_type": "depth_anything",
    "patch_size": PATCH_PX,
    "reassemble_factors": [4, 2, 1, 0.5],
}


def find_layout(checkpoint):
    """The layout whose names the tensors have. Raises DavError for those of another network."""
    for layout in LAYOUTS:
        if _names(layout)["encoder/class_token"] in checkpoint.tensors:
            return layout
    first = ", ".join(shown(name[:80]) for name in list(checkpoint.tensors)[:3])
    raise DavError(
        f"{checkpoint.source} holds neither a Depth Anything nor a DINOv2 network (its tensors "
        f"begin with {first or 'nothing'}); name another checkpoint"
    )


def infer_encoder(checkpoint, layout):
    """The encoder's part of the architecture. The decoder's is that of the published size with
    this encoder, or in proportion, with the taps of V1: the file says nothing of it."""
    names = _names(layout)
    _, _, width = _shape(checkpoint, names["encoder/class_token"], 3)
    _, rows, _ = _shape(checkpoint, names["encoder/positions"], 3)
    side = math.isqrt(max(rows - 1, 0))
    pattern = re.escape(names["encoder/block_00/norm1/scale"]).replace("0", r"\d+")
    blocks = sum(1 for name in checkpoint.tensors if re.fullmatch(pattern, name))
    if width % HEAD_WIDTH or side * side + 1 != rows or blocks < TAPS:
        raise DavError(
            f"{checkpoint.source} is no DINOv2 encoder: width {width}, {rows} positions, {blocks} "
            f"blocks; its width is a multiple of {HEAD_WIDTH}, its positions a square and one"
        )
    registers = 0
    if names["encoder/registers"] in checkpoint.tensors:
        _, registers, _ = _shape(checkpoint, names["encoder/registers"], 3)
    swiglu = names["encoder/block_00/mlp/w12/kernel"] in checkpoint.tensors
    alike = [size for size in SIZES.values() if (size.width, size.blocks) == (width, blocks)]
    features, reassemble = width // 6, (width // 8, width // 4, width // 2, width)
    return Architecture(
        width,
        blocks,
        width // HEAD_WIDTH,
        tuple(range(blocks - TAPS, blocks)),
        alike[0].features if alike else features,
        alike[0].reassemble if alike else reassemble,
        position_grid=side,
        # What the code that goes with each layout does (dav.models.vit.resize_positions).
        position_offset=0.1 if layout.name == "official" and not registers else 0.0,
        position_antialias=registers > 0,
        registers=registers,
        swiglu=swiglu,
    )


def infer(checkpoint, layout):
    """The architecture of a whole network. Raises DavError if nothing tells taps and head."""
    names, shapes = _names(layout), {}
    for number in range(1, TAPS + 1):
        for kind in ("lateral", "project"):
            name = names[f"decoder/{kind}_{number}/kernel"]
            shapes[f"{kind}_{number}"] = _shape(checkpoint, name, 4)
    architecture = dataclasses.replace(
        infer_encoder(checkpoint, layout),
        features=shapes["lateral_1"][0],
        reassemble=tuple(shapes[f"project_{number}"][0] for number in range(1, TAPS + 1)),
    )
    if checkpoint.record:
        return _recorded(checkpoint, architecture)
    told = _from_config if layout.name == "transformers" else _from_names
    return dataclasses.replace(architecture, **told(checkpoint, architecture))


def _names(layout):
    """{leaf: foreign name}, first of several, of a network with one block and every other leaf."""
    both = (PROBE, dataclasses.replace(PROBE, swiglu=True))
    return {row.leaf: row.keys[0] for probe in both for row in make_table(probe, layout)}


def _shape(checkpoint, name, sides):
    tensor = checkpoint.tensors.get(name)
    if tensor is None or tensor.ndim != sides:
        raise DavError(
            f"{checkpoint.source} has no tensor {name} of {sides} dimensions, so it is not the "
            "network that other names in it announce; download it again or name another checkpoint"
        )
    return tensor.shape


def _recorded(checkpoint, inferred):
    """The architecture that dav noted, once it agrees with the tensors."""
    try:
        noted = json.loads(checkpoint.record)
        noted = {k: tuple(v) if isinstance(v, list) else v for k, v in noted.items()}
        told = {name: noted[name] for name in RECORDED}
        if dataclasses.replace(inferred, **told) != Architecture(**noted):
            raise ValueError("it is not that of the tensors")
        architecture = Architecture(**noted)
        _check_taps(architecture.taps, architecture.blocks)
        if not 0 <= architecture.position_offset < 1 or not (architecture.max_depth_m or 1) > 0:
            raise ValueError("numbers out of their range")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DavError(
            f"{checkpoint.source}: the architecture noted in it is damaged ({error}); export it "
            "again"
        ) from None
    return architecture


def _from_names(checkpoint, architecture):
    """Taps and head of an official file, by the name of its release."""
    for name in checkpoint.names:
        plain = re.sub(r"\.(safetensors|pth|pt|bin)$", "", name.lower()).replace("-", "_")
        release = RELEASED.fullmatch(plain)
        if release:
            taps = architecture.taps
            if release["v2"]:
                taps = _v2_taps(checkpoint, architecture)
            return {"taps": taps, "max_depth_m": MAX_DEPTH_M[release["scene"]]}
    raise DavError(
        f"{checkpoint.source} does not tell which network it is, for Depth Anything V1, V2 and V2 "
        "metric have the same tensors; give the file its release's name: depth_anything_vitl14 "
        "(V1), depth_anything_v2_vitl, depth_anything_v2_metric_hypersim_vitl (up to 20 m) or "
        "depth_anything_v2_metric_vkitti_vitl (up to 80 m), with vits or vitb in vitl's place"
    )


def _v2_taps(checkpoint, architecture):
    for size, taps in V2_TAPS.items():
        if SIZES[size].blocks == architecture.blocks:
            return taps
    raise DavError(
        f"{checkpoint.source} has {architecture.blocks} blocks, which no Depth Anything V2 has; "
        "name another checkpoint"
    )


def _from_config(checkpoint, architecture):
    """Taps and head of a transformers folder, by its config.json."""
    config, source = read_config(checkpoint.folder), checkpoint.source
    if not config:
        raise DavError(f"{source} has no config.json beside it, which tells taps and head; copy it")
    backbone = config.get("backbone_config")
    if not isinstance(backbone, dict):
        raise DavError(f"{source}: its config.json has no backbone_config, so the taps are unknown")
    _check_constants(config, HEAD_CONSTANTS, source)
    check_backbone(backbone, architecture, source)
    kind, max_depth_m = config.get("depth_estimation_type") or "relative", config.get("max_depth")
    if kind not in ("relative", "metric"):
        raise DavError(f"{source}: its config.json has an unknown depth_estimation_type, {kind!r}")
    if kind == "relative" and max_depth_m not in (None, 1):
        raise DavError(f"{source}: its config.json is relative, but max_depth is {max_depth_m!r}")
    if kind == "metric" and not (isinstance(max_depth_m, int | float) and max_depth_m > 0):
        raise DavError(f"{source}: its config.json is metric, but max_depth is {max_depth_m!r}")
    return {
        "taps": _config_taps(backbone, architecture.blocks, source),
        "max_depth_m": float(max_depth_m) if kind == "metric" else None,
    }


def check_backbone(config, architecture, source):
    """Raises DavError for settings under which transformers computes what dav does not."""
    heads = {"num_attention_heads": architecture.heads}
    _check_constants(config, BACKBONE_CONSTANTS | heads, source)


def _check_constants(config, constants, source):
    differing = [
        f"{name} is {config[name]!r} instead of {value!r}"
        for name, value in constants.items()
        if name in config and config[name] != value
    ]
    if differing:
        raise DavError(
            f"{source}: its config.json describes a network that dav does not have "
            f"({'; '.join(differing)})"
        )


def _config_taps(backbone, blocks, source):
    """0-based taps; transformers counts stages, of which stage 0 is the embedding."""
    stages, names = backbone.get("out_indices"), backbone.get("out_features")
    try:
        if stages is None:
            stages = [int(str(name).removeprefix("stage")) for name in names]
        taps = tuple(stage - 1 if stage >= 0 else stage + blocks for stage in stages)
        _check_taps(taps, blocks)
    except (ValueError, TypeError):
        raise DavError(
            f"{source}: its config.json names no four blocks in order ({stages or names!r})"
        ) from None
    return taps


def _check_taps(taps, blocks):
    """Raises ValueError unless taps are four ascending block indices."""
    ascending = len(taps) == TAPS and list(taps) == sorted(set(taps))
    if not ascending or not all(type(tap) is int and 0 <= tap < blocks for tap in taps):
        raise ValueError(f"taps {list(taps)} of {blocks} blocks")
