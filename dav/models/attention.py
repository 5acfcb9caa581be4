"""Multi-head attention over one image's tokens, by the kernel that suits the platform.

Shapes: B batch, N tokens, H heads, K head width.
"""

import jax
import jax.numpy as jnp

from dav.models.flash_attention import cudnn, cudnn_takes, splash


def attend(query, key, value, *, backend=None):
    """softmax(q k^T / sqrt(K)) v for [B, N, H, K] inputs of one shape; returns v's shape and dtype.

    The statistics of the softmax are float32. `backend` is "xla" (anywhere), "cudnn" (NVIDIA GPUs
    from Ampere on, 16-bit inputs), "splash" (TPU), or None: by the platform that the program is
    compiled for, be it this machine's or not: splash on TPU, cuDNN where it runs, else XLA. What
    None lowers to cannot be lowered for several platforms at once (`jax.export`) if TPU is one of
    them, nor with a symbolic number of tokens; "xla" can. On a mesh, see `splash`.
    Raises ValueError for an unknown backend, and for inputs or machines "cudnn" cannot work with.
    """
    if backend is None:
        return _by_platform(query, key, value)
    if backend not in ("xla", "cudnn", "splash"):
        raise ValueError(
            f"unknown attention backend {backend!r}; choose xla, cudnn, splash, or None for the "
            "platform's own"
        )
    return {"xla": blockwise, "cudnn": cudnn, "splash": splash}[backend](query, key, value)


# Jitted so that the branches are traced once a shape, not once a block of the network. The compiler
# sees the branch of its platform only.
@jax.jit
def _by_platform(query, key, value):
    branches = {"tpu": splash}
    if cudnn_takes(query.dtype, query.shape[-1]):
        branches["cuda"] = cudnn
    return jax.lax.platform_dependent(query, key, value, **branches, default=blockwise)


def blockwise(query, key, value):
    """Attention in plain XLA; logits and softmax in float32."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum(
        "bnhk,bmhk->bhnm", query * scale, key, preferred_element_type=jnp.float32
    )  # [B, H, N, N]
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhk->bnhk", weights, value)
