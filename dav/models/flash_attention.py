"""Fused attention kernels: cuDNN's on GPU, splash (Pallas) on TPU. No logits in main memory.

Shapes: B batch, N tokens, H heads, K head width, P tokens with padding.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.extend.backend import get_backend

from dav.models.placement import ambient_mesh

CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
CUDNN_WIDTH_STEP, CUDNN_MAX_WIDTH = 8, 128
CUDNN_MIN_CAPABILITY = (8, 0)

LANES = 128  # every length splash sees must be a multiple of it
BLOCKS = (640, 512, 384)
# Up to here keys and values of one head, and their gradients, stay whole in 16 MiB of VMEM.
WHOLE_TOKENS = 3072


def cudnn(query, key, value):
    """Flash attention of cuDNN for bfloat16 or float16 [B, N, H, K]; float32 statistics.

    Neither padding nor mask: cuDNN takes odd lengths as they are, while the gradient of masked
    ones has been NaN (pytorch#196678). Raises ValueError where it cannot work.
    """
    dtype, head_width = query.dtype, query.shape[-1]
    if not cudnn_takes(dtype, head_width):
        raise ValueError(
            f"cuDNN attention needs bfloat16 or float16 (here {dtype}), a head width of 8, 16 … "
            f"{CUDNN_MAX_WIDTH} (here {head_width}) and an NVIDIA GPU of compute capability 8.0 or "
            f"newer (here: {get_backend().platform}); use the backend xla"
        )
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def cudnn_takes(dtype, head_width):
    """Whether this machine's cuDNN has a kernel for the inputs. False on machines without a GPU,
    even if they compile for one: the kernel's version is chosen while tracing."""
    fits = dtype in CUDNN_DTYPES and head_width % CUDNN_WIDTH_STEP == 0
    return fits and head_width <= CUDNN_MAX_WIDTH and _cudnn_runs_here()


@functools.cache
def _cudnn_runs_here():
    backend = get_backend()
    if "cuda" not in backend.platform_version:
        return False
    capability = backend.local_devices()[0].compute_capability
    return tuple(int(part) for part in capability.split(".")) >= CUDNN_MIN_CAPABILITY


def splash(query, key, value, *, interpret=False):
    """Splash attention for [B, N, H, K] of any N and K; float32 statistics. Compiles for TPU only,
    but for `interpret`.

    XLA cannot split the kernel over a mesh, so it runs by itself on each device's share of the
    batch. The mesh is that of `jax.set_mesh`, or of the arrays that the inputs were computed from.
    A batch that does not divide over the mesh is computed whole on every device.
    """
    run = functools.partial(_splash_on_one_device, interpret=interpret)
    mesh = ambient_mesh(query)
    axes = mesh.auto_axes  # in a shard_map there are none: its inputs are shares already
    if mesh.size == 1 or not axes:
        return run(query, key, value)
    shares = 1
    for axis in axes:
        shares *= mesh.shape[axis]
    spec = jax.P(axes if query.shape[0] % shares == 0 else None)
    split = jax.shard_map(
        run, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=set(axes), check_vma=False
    )
    return split(query, key, value)


def _splash_on_one_device(query, key, value, *, interpret):
    _, tokens, heads, head_width = query.shape
    padded, block = padding(tokens)
    kernel = _make_kernel(heads, padded, block, interpret)
    ids = None
    if padded > tokens:
        real = (jnp.arange(padded) < tokens).astype(jnp.int32)  # real tokens see real ones only
        ids = splash_kernel.SegmentIds(q=real, kv=real)
    missing = ((0, 0), (0, 0), (0, padded - tokens), (0, 0))
    heads_first = [
        jnp.pad(jnp.swapaxes(x, 1, 2), missing) for x in (query * head_width**-0.5, key, value)
    ]  # [B, H, P, K]
    out = jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=ids))(*heads_first)
    return jnp.swapaxes(out[:, :, :tokens], 1, 2).astype(value.dtype)


def padding(tokens):
    """(P, block) of splash: the tokens with padding, and how many a grid step takes.

    A step costs as much as a good part of its arithmetic, so blocks of 128 are slow; blocks must
    divide P; and whole unrolled sequences take seconds to compile. So blocks of 384 to 640, of
    which the one that pads least. 1370 tokens take 3 × 512 = 1536 and not 1408 = 11 × 128, whose
    only blocks are 128 and all of it: by the compiler's schedules for v5e, forward and backward of
    one head are 37 thousand cycles with (512, all of the keys), 47 with (128, all of 1408), 187
    with (128, 128).
    """
    if tokens <= BLOCKS[-1]:
        block = -(-tokens // LANES) * LANES
        return block, block
    return min(((-(-tokens // block) * block, block) for block in BLOCKS), key=lambda x: x[0])


def _make_kernel(heads, padded, block, interpret):
    mask = splash_mask.MultiHeadMask([splash_mask.FullMask((padded, padded))] * heads)
    whole = padded <= WHOLE_TOKENS
    keys = padded if whole else block
    # One backward kernel instead of two saves two of seven products, but keeps a copy of the
    # query's gradient for each block of keys: good while there is but one.
    separate = {} if whole else {"block_q_dq": block, "block_kv_dq": block}
    sizes = splash_kernel.BlockSizes(
        block_q=block,
        block_kv=keys,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=keys,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=whole,
        **separate,
    )
    return splash_kernel.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
    )
