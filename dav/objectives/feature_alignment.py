"""Feature alignment with a tolerance margin (Depth Anything, eq. 9).

Shapes: B images, h w patch grid, D width.
"""

import jax
import jax.numpy as jnp


def feature_alignment(tokens, frozen, *, margin):
    """Cosine distance between the student's tokens and a frozen encoder's, both [B, h, w, D].

    Tokens whose cosine exceeds `margin` (α, 0.85 in the paper) are left alone. Returns float32 []
    twice: the sum of 1 − cos over the kept tokens and their number. The loss is their ratio, 0 for
    none kept (that the mean is over the kept tokens is our reading). A token of zeros is
    orthogonal to all; one that is not finite is kept, so that the sum shows it.
    """
    cosine = jnp.sum(_unit(tokens) * jax.lax.stop_gradient(_unit(frozen)), axis=-1)
    kept = ~(cosine > margin)
    return jnp.sum(jnp.where(kept, 1 - cosine, 0.0)), jnp.sum(kept, dtype=jnp.float32)


def _unit(x):
    x = x.astype(jnp.float32)
    # Divided by its largest component first, so that no square leaves float32.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / jnp.where(size == 0, 1.0, size)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square == 0, 1.0, square))
