"""Multi-head attention over one image's tokens.

Shapes: B batch, N tokens, H heads, K head width.
"""

import jax
import jax.numpy as jnp


def attend(query, key, value):
    """softmax(q k^T / sqrt(K)) v for [B, N, H, K] inputs; logits and softmax in float32."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum(
        "bnhk,bmhk->bhnm", query * scale, key, preferred_element_type=jnp.float32
    )  # [B, H, N, N]
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhk->bnhk", weights, value)
