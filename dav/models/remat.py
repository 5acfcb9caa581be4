"""What the backward pass computes anew instead of keeping it, to save memory.

none      nothing
products  in every block of the encoder all but what its matrix products yield: norms, GELU and
          attention, a few percent of the work for half of the memory
blocks    every block of the encoder, of which only the input is kept
all       that, and the fusions and the head of the decoder
"""

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

POLICIES = ("none", "products", "blocks", "all")
PRODUCT = "product"


def named_product(x):
    """Marks what a matrix product yields; the same array."""
    return checkpoint_name(x, PRODUCT)


def recomputed_block(block, policy, **options):
    """The module class of an encoder's block under a policy."""
    if policy == "none":
        return block
    kept = jax.checkpoint_policies.save_only_these_names(PRODUCT) if policy == "products" else None
    return nn.remat(block, policy=kept, **options)


def recomputed_stage(stage, policy, **options):
    """The module class of a stage of the decoder, or a method of it, under a policy."""
    return nn.remat(stage, **options) if policy == "all" else stage
