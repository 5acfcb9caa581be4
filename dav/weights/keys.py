"""The key table: every leaf of dav beside its counterpart in the two layouts in use, both ways.

`official` is the layout of the authors of DINOv2 and Depth Anything, `transformers` that of the
library as it writes files. Shapes here are the foreign ones: a linear layer is [out, in], a
convolution [out, in, y, x], a transposed one [in, out, y, x].
"""

from dataclasses import dataclass

from dav.models.vit import PATCH_PX, swiglu_width

HEAD_CHANNELS = 32  # between the decoder's last two layers, in all sizes

# Kind of a layer → dav's name of its weight, dav's axes in terms of the foreign ones.
KINDS = {
    "norm": ("scale", (0,)),
    "linear": ("kernel", (1, 0)),
    "conv": ("kernel", (2, 3, 1, 0)),
    "upsample": ("kernel", (2, 3, 0, 1)),
}


@dataclass(frozen=True)
class Layout:
    """One naming of the tensors, and what its two parts' names begin with."""

    name: str  # "official" or "transformers"
    encoder: str
    decoder: str | None  # None: a file of the encoder alone


OFFICIAL = Layout("official", "pretrained.", "depth_head.")
DINOV2 = Layout("official", "", None)
TRANSFORMERS = Layout("transformers", "backbone.", "")
TRANSFORMERS_ENCODER = Layout("transformers", "", None)
LAYOUTS = (OFFICIAL, TRANSFORMERS, DINOV2, TRANSFORMERS_ENCODER)


@dataclass(frozen=True)
class Row:
    """One leaf of dav. The foreign tensors named `keys`, joined along their first axis, have
    `shape`; transposed by `axes` they are the leaf."""

    leaf: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True)
class _Layer:
    """A layer, or with kind "leaf" a bare parameter, under its three names."""

    dav: str
    kind: str
    shape: tuple[int, ...]
    official: str
    transformers: str | tuple[str, ...]  # several: the layer is split along its outputs
    bias: bool = True


def make_table(architecture, layout):
    """The rows of all leaves of a network; of its encoder alone if the layout has no decoder."""
    layers = [(layer, "encoder/", layout.encoder) for layer in _encoder(architecture)]
    if layout.decoder is not None:
        layers += [(layer, "decoder/", layout.decoder) for layer in _decoder(architecture)]
    return [row for layer in layers for row in _rows(*layer, layout.name)]


def _rows(layer, part, prefix, layout_name):
    """One layer's rows: weight and, if it has one, bias."""
    names = getattr(layer, layout_name)
    names = [prefix + name for name in ((names,) if isinstance(names, str) else names)]
    if layer.kind == "leaf":
        yield Row(part + layer.dav, tuple(names), layer.shape, tuple(range(len(layer.shape))))
        return
    weight, axes = KINDS[layer.kind]
    keys = tuple(f"{name}.weight" for name in names)
    yield Row(f"{part}{layer.dav}/{weight}", keys, layer.shape, axes)
    if layer.bias:
        keys = tuple(f"{name}.bias" for name in names)
        outputs = layer.shape[1 if layer.kind == "upsample" else 0]
        yield Row(f"{part}{layer.dav}/bias", keys, (outputs,), (0,))


def _encoder(a):
    width, tokens = a.width, a.position_grid**2 + 1
    patch = (width, 3, PATCH_PX, PATCH_PX)
    yield _Layer("class_token", "leaf", (1, 1, width), "cls_token", "embeddings.cls_token")
    yield _Layer("mask_token", "leaf", (1, width), "mask_token", "embeddings.mask_token")
    yield _Layer(
        "positions", "leaf", (1, tokens, width), "pos_embed", "embeddings.position_embeddings"
    )
    if a.registers:
        shape = (1, a.registers, width)
        yield _Layer("registers", "leaf", shape, "register_tokens", "embeddings.register_tokens")
    yield _Layer(
        "patch_embed", "conv", patch, "patch_embed.proj", "embeddings.patch_embeddings.projection"
    )
    for index in range(a.blocks):
        yield from _block(a, f"block_{index:02d}", f"blocks.{index}", f"encoder.layer.{index}")
    yield _Layer("norm", "norm", (width,), "norm", "layernorm")


def _block(a, dav, official, transformers):
    width = a.width
    layers = [
        ("norm1", "norm", (width,), "norm1", "norm1"),
        ("attn/qkv", "linear", (3 * width, width), "attn.qkv", ("query", "key", "value")),
        ("attn/proj", "linear", (width, width), "attn.proj", "attention.output.dense"),
        ("scale1", "leaf", (width,), "ls1.gamma", "layer_scale1.lambda1"),
        ("norm2", "norm", (width,), "norm2", "norm2"),
        ("scale2", "leaf", (width,), "ls2.gamma", "layer_scale2.lambda1"),
    ]
    if a.swiglu:
        hidden = swiglu_width(width)
        layers += [
            ("mlp/w12", "linear", (2 * hidden, width), "mlp.w12", "mlp.weights_in"),
            ("mlp/w3", "linear", (width, hidden), "mlp.w3", "mlp.weights_out"),
        ]
    else:
        layers += [
            ("mlp/fc1", "linear", (4 * width, width), "mlp.fc1", "mlp.fc1"),
            ("mlp/fc2", "linear", (width, 4 * width), "mlp.fc2", "mlp.fc2"),
        ]
    for name, kind, shape, theirs, library in layers:
        if isinstance(library, tuple):
            library = tuple(f"{transformers}.attention.attention.{part}" for part in library)
        else:
            library = f"{transformers}.{library}"
        yield _Layer(f"{dav}/{name}", kind, shape, f"{official}.{theirs}", library)


def _decoder(a):
    features = a.features
    for index, channels in enumerate(a.reassemble):
        yield from _reassemble(a.width, features, index, channels)
    for level in (1, 2, 3, 4):
        yield from _fusion(features, level)
    half = features // 2
    for name, shape, theirs, library in (
        ("output_1", (half, features, 3, 3), "output_conv1", "conv1"),
        ("output_2", (HEAD_CHANNELS, half, 3, 3), "output_conv2.0", "conv2"),
        ("output_3", (1, HEAD_CHANNELS, 1, 1), "output_conv2.2", "conv3"),
    ):
        yield _Layer(name, "conv", shape, f"scratch.{theirs}", f"head.{library}")


def _reassemble(width, features, index, channels):
    """Tap `index` (from 0): projection, resize (the third has none), and lateral convolution."""
    stage = f"neck.reassemble_stage.layers.{index}"
    project = (channels, width, 1, 1)
    yield _Layer(
        f"project_{index + 1}", "conv", project, f"projects.{index}", f"{stage}.projection"
    )
    kind, kernel_px = (("upsample", 4), ("upsample", 2), None, ("conv", 3))[index] or (None, 0)
    if kind:
        shape = (channels, channels, kernel_px, kernel_px)
        official = f"resize_layers.{index}"
        yield _Layer(f"resize_{index + 1}", kind, shape, official, f"{stage}.resize")
    yield _Layer(
        f"lateral_{index + 1}",
        "conv",
        (features, channels, 3, 3),
        f"scratch.layer{index + 1}_rn",
        f"neck.convs.{index}",
        bias=False,
    )


def _fusion(features, level):
    """Fusion `level`, 4 the deepest; transformers counts them in the order in which they run."""
    dav, official = f"fusion_{level}", f"scratch.refinenet{level}"
    library = f"neck.fusion_stage.layers.{4 - level}"
    shape = (features, features, 1, 1)
    yield _Layer(f"{dav}/project", "conv", shape, f"{official}.out_conv", f"{library}.projection")
    for unit in (1, 2):
        for number in (1, 2):
            yield _Layer(
                f"{dav}/unit{unit}/conv{number}",
                "conv",
                (features, features, 3, 3),
                f"{official}.resConfUnit{unit}.conv{number}",
                f"{library}.residual_layer{unit}.convolution{number}",
            )
