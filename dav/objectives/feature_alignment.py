"""Feature alignment with a tolerance margin (Depth Anything, eq. 9).

Shapes: B images, h w patch grid, D width.
"""

import jax
import jax.numpy as jnp


def feature_alignment(tokens, frozen, *, margin):
    """Cosine distance between the student's tokens and a frozen encoder's, both [B, h, w, D].

    Tokens whose cosine exceeds `margin` (α, 0.85 in the paper) are left alone. Returns the sum of
    1 − cos over the kept tokens and their number: the loss is their ratio, 0 for none kept (that
    the mean is over the kept tokens is our reading).
    """
    cosine = jnp.sum(_unit(tokens) * jax.lax.stop_gradient(_unit(frozen)), axis=-1)
    kept = cosine <= margin
    return jnp.sum(jnp.where(kept, 1 - cosine, 0.0)), jnp.sum(kept)


def _unit(x):
    # Under the root, so that the gradient at a zero vector stays finite.
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
