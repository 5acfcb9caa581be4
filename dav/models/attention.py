"""Multi-head attention over one image's tokens, by the kernel that suits the platform.

Shapes: B batch, N tokens, H heads, K head width.
"""

import functools

import jax
import jax.numpy as jnp

from dav.models.flash_attention import cudnn, cudnn_takes, splash

# Logits held at a time by plain XLA. All heads at once while they fit; else head by head in blocks
# of queries that stay near the cores: twice as fast on CPU at 1370 tokens, memory linear in N.
BLOCK_BYTES = 4 * 2**20
WHOLE_BYTES = 16 * 2**20
UNROLLED_HEADS, UNROLLED_BLOCKS = 8, 4  # loops copy what they work on, but compile once
WHOLE_BYTES_GPU = 512 * 2**20  # a GPU wants much work at a time


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
    branches = {
        "tpu": splash,
        "cuda": functools.partial(blockwise, whole_bytes=WHOLE_BYTES_GPU),
    }
    if cudnn_takes(query.dtype, query.shape[-1]):
        branches["cuda"] = cudnn
    return jax.lax.platform_dependent(query, key, value, **branches, default=blockwise)


def blockwise(query, key, value, *, whole_bytes=WHOLE_BYTES):
    """Attention in plain XLA; logits and softmax in float32, at most `whole_bytes` of them."""
    batch, tokens, heads, width = query.shape
    query, key, value = (
        x.transpose(0, 2, 1, 3).reshape(batch * heads, tokens, width)
        for x in (query * width**-0.5, key, value)
    )
    if 4 * batch * heads * tokens**2 <= whole_bytes:
        out = _attend_block(query, key, value)
    elif batch * heads <= UNROLLED_HEADS:
        each = zip(query, key, value, strict=True)
        out = jnp.stack([_attend_head(*head) for head in each])
    else:
        out = jax.lax.map(lambda head: _attend_head(*head), (query, key, value))
    return out.reshape(batch, heads, tokens, width).transpose(0, 2, 1, 3)


def _attend_block(query, key, value):
    """[..., n, K] queries on [..., N, K] keys and values, all logits at once."""
    return _weigh(query, key, value)[0]


def _weigh(query, key, value):
    """What `_attend_block` returns, and the logarithms [..., n, 1] of the sums of exp(logits)."""
    logits = _product("...nk,...mk->...nm", query, key)
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    total = weights.sum(axis=-1, keepdims=True)
    out = _product("...nm,...mk->...nk", weights.astype(value.dtype), value)
    return (out / total).astype(value.dtype), largest + jnp.log(total)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _attend_head(query, key, value):
    """One head [N, K], a block of queries at a time. So does its gradient, which computes the
    weights of each block again (FlashAttention-2, arXiv 2307.08691, algorithm 2)."""
    return _head_forward(query, key, value)[0]


def _head_forward(query, key, value):
    def one(query):
        return _weigh(query, key, value), ()

    (out, log_total), _ = _by_blocks(one, query)
    return out, (query, key, value, out, log_total)


def _head_backward(kept, gradient):
    query, key, value, out, log_total = kept
    mean = jnp.sum(gradient.astype(jnp.float32) * out, axis=-1, keepdims=True)

    def one(query, log_total, gradient, mean):
        weights = jnp.exp(_product("nk,mk->nm", query, key) - log_total)
        by_weights = _product("nk,mk->nm", gradient, value)
        by_logits = (weights * (by_weights - mean)).astype(key.dtype)
        by_key = _product("nm,nk->mk", by_logits, query)
        by_value = _product("nm,nk->mk", weights.astype(value.dtype), gradient)
        return _product("nm,mk->nk", by_logits, key), (by_key, by_value)

    by_query, (by_key, by_value) = _by_blocks(one, query, log_total, gradient, mean)
    return tuple(x.astype(query.dtype) for x in (by_query, by_key, by_value))


_attend_head.defvjp(_head_forward, _head_backward)


def _by_blocks(function, *arrays):
    """function(a block of every array [N, ...]) → (rows, sums): the rows of all blocks in one, and
    the sums over them."""
    tokens = arrays[0].shape[0]
    blocks = -(-4 * tokens**2 // BLOCK_BYTES)
    rows = -(-tokens // blocks)
    if blocks <= UNROLLED_BLOCKS:
        each = [function(*(x[i : i + rows] for x in arrays)) for i in range(0, tokens, rows)]
        parts, sums = zip(*each, strict=True)
        joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        return joined, jax.tree.map(lambda *x: functools.reduce(jnp.add, x), *sums)

    def add(total, block):
        part, sums = function(*block)
        return jax.tree.map(jnp.add, total, sums), part

    # Rows of zeros add nothing: their gradients are zero too.
    padded = [jnp.pad(x, ((0, blocks * rows - tokens), (0, 0))) for x in arrays]
    cut = [x.reshape(blocks, rows, x.shape[-1]) for x in padded]
    like = jax.eval_shape(lambda block: function(*block)[1], [x[0] for x in cut])
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    sums, parts = jax.lax.scan(add, nothing, cut)
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:tokens], parts), sums
