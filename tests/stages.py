"""Every stage of a network, as dav computes it and as transformers does.

Both give {stage: float32 [B, h, w, C]}: tokens after the patch embedding, after each tap, each
stage of the decoder, and the map as `depth`.
"""

import dataclasses
import functools

import jax
import numpy as np
from random_weights import random_official_state
from safetensors.numpy import save_file

from dav.files import write_json
from dav.models.depth_anything import SIZES, V2_TAPS, DepthAnything
from dav.models.vit import PATCH_PX
from dav.weights.convert import from_params, to_params
from dav.weights.keys import OFFICIAL, TRANSFORMERS_ENCODER, make_table
from dav.weights.load import Weights
from dav.weights.save import save_transformers, transformers_config

DECODER_STAGES = {
    "reassemble_1": "resize_1",
    "reassemble_2": "resize_2",
    "reassemble_3": "project_3",
    "reassemble_4": "resize_4",
    **{f"lateral_{i}": f"lateral_{i}" for i in (1, 2, 3, 4)},
    **{f"fusion_{i}": f"fusion_{i}" for i in (4, 3, 2, 1)},
    "output_1": "output_1",
}
# Networks of all published kinds, positions as transformers resizes them.
ARCHITECTURES = {
    "vits": dataclasses.replace(SIZES["vits"], taps=V2_TAPS["vits"], position_offset=0.0),
    "registers": dataclasses.replace(
        SIZES["vits"], registers=4, position_offset=0.0, position_antialias=True
    ),
    "vitb": dataclasses.replace(SIZES["vitb"], position_offset=0.0, max_depth_m=20.0),
    "vitl": dataclasses.replace(SIZES["vitl"], taps=V2_TAPS["vitl"], position_offset=0.0),
}
SIZES_PX = {"518x518": (518, 518), "518x686": (518, 686), "252x336": (252, 336)}
NAMES = ["patches", *(f"tap_{i}" for i in (1, 2, 3, 4)), *DECODER_STAGES, "depth"]


def random_params(architecture, seed=0):
    """Weights by seed, as a parameter tree."""
    table = make_table(architecture, OFFICIAL)
    return to_params(random_official_state(architecture, seed), table, "random weights")


def random_image(size_px, seed=0):
    """A normalised image, float32 [1, *size_px, 3]."""
    return np.random.default_rng(seed).standard_normal((1, *size_px, 3), np.float32)


@functools.partial(jax.jit, static_argnums=2)
def _run(params, image, architecture):
    wanted = {"encoder", "patch_embed", *DECODER_STAGES.values()}
    (depth, _), found = DepthAnything(architecture).apply(
        {"params": params},
        image,
        capture_intermediates=lambda module, _: module.name in wanted,
        mutable=["intermediates"],
    )
    return depth, found["intermediates"]


def dav_stages(params, architecture, image):
    """The stages by dav, matrix products in full float32."""
    with jax.default_matmul_precision("highest"):
        depth, found = jax.device_get(_run(params, image, architecture))
    taps = found["encoder"]["__call__"][0]
    return {
        "patches": found["encoder"]["patch_embed"]["__call__"][0],
        **{f"tap_{i + 1}": tap for i, tap in enumerate(taps)},
        **{k: found["decoder"][name]["__call__"][0] for k, name in DECODER_STAGES.items()},
        "depth": depth[..., None],
    }


def make_transformers_model(params, architecture, folder):
    """The same network by transformers, through files below `folder`.

    transformers has no Depth Anything on an encoder with registers: that encoder is put in place.
    """
    from transformers import AutoModelForDepthEstimation, Dinov2WithRegistersBackbone

    plain = dataclasses.replace(architecture, registers=0)
    save_transformers(folder / "plain", Weights(params, plain, "test"))
    model = AutoModelForDepthEstimation.from_pretrained(folder / "plain")
    if architecture.registers:
        config = transformers_config(plain)["backbone_config"] | {
            "architectures": ["Dinov2WithRegistersBackbone"],
            "model_type": "dinov2_with_registers",
            "num_register_tokens": architecture.registers,
        }
        tensors = from_params(params, make_table(architecture, TRANSFORMERS_ENCODER))
        write_json(folder / "encoder" / "config.json", config)
        save_file(tensors, folder / "encoder" / "model.safetensors", metadata={"format": "pt"})
        model.backbone = Dinov2WithRegistersBackbone.from_pretrained(folder / "encoder")
    return model.eval()


def transformers_stages(model, image):
    """The stages by transformers; the encoder's output is passed on without its registers."""
    import torch

    grid = tuple(side // PATCH_PX for side in image.shape[1:3])
    found = {}

    def keep(name):
        return lambda module, inputs, output: found.__setitem__(name, output)

    neck = model.neck
    modules = {"patches": model.backbone.embeddings.patch_embeddings, "output_1": model.head.conv1}
    for i in range(4):
        modules[f"reassemble_{i + 1}"] = neck.reassemble_stage.layers[i]
        modules[f"lateral_{i + 1}"] = neck.convs[i]
        modules[f"fusion_{4 - i}"] = neck.fusion_stage.layers[i]
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.no_grad():
        pixels = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
        taps = model.backbone.forward_with_filtered_kwargs(pixels).feature_maps
        if registers := getattr(model.backbone.config, "num_register_tokens", 0):
            taps = [torch.cat([t[:, :1], t[:, 1 + registers :]], dim=1) for t in taps]
        depth = model.head(neck(taps, *grid), *grid)
    for hook in hooks:
        hook.remove()
    found |= {f"tap_{i + 1}": tap[:, 1:] for i, tap in enumerate(taps)} | {"depth": depth[:, None]}
    return {name: _channels_last(found[name].numpy(), grid) for name in NAMES}


def _channels_last(values, grid):
    """Tokens [B, N, D] or maps [B, C, h, w] → [B, h, w, C]."""
    if values.ndim == 3:
        return values.reshape(len(values), *grid, -1)
    return values.transpose(0, 2, 3, 1)
