"""Every attention back end, forward and backward, against plain float64 NumPy."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, NamedSharding

from dav.models import flash_attention
from dav.models.attention import attend, blockwise
from dav.models.flash_attention import cudnn, cudnn_takes, padding, splash

ROOT = Path(__file__).parent.parent.parent
TOKENS = pytest.mark.parametrize("tokens", [257, 785, 1370])  # 224², 392², 518²
needs_cudnn = pytest.mark.skipif(
    not cudnn_takes(jnp.bfloat16, 64), reason="no NVIDIA GPU with cuDNN attention on this machine"
)
BACKENDS = {
    "xla": blockwise,
    "splash": functools.partial(splash, interpret=True),
    "cudnn": cudnn,
}
BY_BACKEND = pytest.mark.parametrize(
    "backend", ["xla", "splash", pytest.param("cudnn", marks=needs_cudnn)]
)


def normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


def make_inputs(tokens, heads=2, head_width=64, images=1):
    """Query, key, value, and the gradient of the output; float64 [B, N, H, K], each a bfloat16."""
    shape = (images, tokens, heads, head_width)
    rounded = [jnp.asarray(normal(shape, seed), jnp.bfloat16) for seed in range(4)]
    return [np.asarray(x, np.float64) for x in rounded]


@functools.cache
def make_case(tokens, **shape):
    """Inputs and what is right for them."""
    inputs = make_inputs(tokens, **shape)
    return inputs, reference(*inputs)


def reference(query, key, value, cotangent):
    """(output, (dq, dk, dv)) by the textbook, in float64."""
    scale = query.shape[-1] ** -0.5
    logits = np.einsum("bnhk,bmhk->bhnm", query, key) * scale
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    by_weights = np.einsum("bnhk,bmhk->bhnm", cotangent, value)
    by_logits = weights * (by_weights - (weights * by_weights).sum(-1, keepdims=True)) * scale
    return np.einsum("bhnm,bmhk->bnhk", weights, value), (
        np.einsum("bhnm,bmhk->bnhk", by_logits, key),
        np.einsum("bhnm,bnhk->bmhk", by_logits, query),
        np.einsum("bhnm,bnhk->bmhk", weights, cotangent),
    )


def run(attention, dtype, query, key, value, cotangent):
    """(output, (dq, dk, dv)) of a back end computing in dtype."""

    @jax.jit
    def both(inputs, cotangent):
        out, pull_back = jax.vjp(attention, *inputs)
        return out, pull_back(cotangent)

    inputs = tuple(jnp.asarray(x, dtype) for x in (query, key, value))
    with jax.default_matmul_precision("highest"):
        out, gradients = both(inputs, jnp.asarray(cotangent, dtype))
    assert all(x.dtype == dtype for x in (out, *gradients))
    return out, gradients


def assert_close(found, expected, tolerance):
    """Every array within `tolerance` of its own largest value."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one = np.asarray(one, np.float64)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("backend", ["xla", "splash"])
@TOKENS
def test_forward_and_gradients_in_float32(backend, tokens):
    inputs, expected = make_case(tokens)
    assert_close(run(BACKENDS[backend], jnp.float32, *inputs), expected, 1e-5)


@BY_BACKEND
@TOKENS
def test_forward_and_gradients_in_bfloat16(backend, tokens):
    """bfloat16 keeps 8 bits (4e-3), and scaled queries, weights and results are rounded to it one
    after the other; statistics in float32 keep the sums over all tokens from adding to that."""
    inputs, expected = make_case(tokens)
    assert_close(run(BACKENDS[backend], jnp.bfloat16, *inputs), expected, 2e-2)


@BY_BACKEND
def test_huge_logits_do_not_overflow(backend):
    """Each token's own key is its best by far, so that the output is the value itself."""
    dtype = jnp.bfloat16 if backend == "cudnn" else jnp.float32
    query, _, value, cotangent = make_inputs(257)
    query = 300 * query
    out, gradients = run(BACKENDS[backend], dtype, query, query, value, cotangent)
    assert_close(out, value, 4e-3)
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in gradients)


@pytest.mark.parametrize("backend", ["xla", "splash"])
@pytest.mark.parametrize("head_width", [8, 16, 32])
def test_narrow_heads_and_several_images(backend, head_width):
    inputs, expected = make_case(50, heads=3, head_width=head_width, images=2)
    assert_close(run(BACKENDS[backend], jnp.float32, *inputs), expected, 1e-5)


def test_splash_in_several_blocks_of_keys(monkeypatch):
    """As for sequences that do not fit the TPU's fast memory in one piece."""
    monkeypatch.setattr(flash_attention, "WHOLE_TOKENS", 512)
    inputs, expected = make_case(785)
    assert_close(run(BACKENDS["splash"], jnp.float32, *inputs), expected, 1e-5)
    # Forward, and a backward kernel each for queries and keys.
    assert lower("tpu", (1, 786, 2, 64)).count("@tpu_custom_call") == 3


def test_splash_without_padding():
    inputs, expected = make_case(256)
    assert_close(run(BACKENDS["splash"], jnp.float32, *inputs), expected, 1e-5)


@given(st.integers(1, 20_000))
def test_padding_is_what_the_kernel_takes(tokens):
    padded, block = padding(tokens)
    assert tokens <= padded < tokens + block
    assert padded % block == 0
    assert block % 128 == 0
    assert block <= 640


def test_padding_of_usual_images():
    """224², 392², 518² and 518 × 686 pixels."""
    found = [padding(tokens) for tokens in (257, 785, 1370, 1814)]
    assert found == [(384, 384), (1024, 512), (1536, 512), (1920, 640)]


def loss(attention, query):
    return jnp.sum(attention(query, 1.1 * query, 0.9 * query).astype(jnp.float32) ** 2)


def lower(platform, shape, dtype=jnp.bfloat16, sharding=None, backend=None):
    """StableHLO of forward and backward for a platform, whatever this machine has."""
    attention = functools.partial(attend, backend=backend)
    step = jax.jit(jax.value_and_grad(functools.partial(loss, attention)))
    query = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return step.trace(query).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="tests the CPU's default")
def test_default_on_cpu_is_blockwise_to_the_bit():
    query = jnp.asarray(normal((2, 257, 2, 16), seed=0), jnp.float32)
    default, plain = (
        jax.jit(jax.value_and_grad(functools.partial(loss, f))) for f in (attend, blockwise)
    )
    assert all(map(np.array_equal, default(query), plain(query)))
    compiled = default.lower(query).compile()
    assert " conditional(" not in compiled.as_text()
    expected = plain.lower(query).compile().memory_analysis().temp_size_in_bytes
    assert compiled.memory_analysis().temp_size_in_bytes == expected


def test_default_for_tpu_is_splash():
    text = lower("tpu", (2, 1370, 2, 64))
    assert text.count("@tpu_custom_call") == 2  # forward, backward
    assert "stablehlo.exponential" not in text


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_default_elsewhere_has_nothing_of_a_tpu(platform):
    text = lower(platform, (2, 257, 2, 64), jnp.float32)
    assert "tpu_custom_call" not in text
    assert "stablehlo.exponential" in text


@needs_cudnn
def test_default_on_gpu_is_cudnn_for_16_bits():
    text = lower("cuda", (2, 257, 2, 64))
    assert "__cudnn$fmhaSoftmax" in text
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert "cudnn" not in lower("cuda", (2, 257, 2, 64), jnp.float32)


@pytest.mark.parametrize(("images", "local"), [(8, 2), (6, 6)])
def test_splash_takes_each_devices_share_of_the_batch(images, local):
    """A batch that does not divide is computed whole on every device."""
    mesh = AbstractMesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    spec = jax.P(("data", "fsdp")) if local < images else jax.P()
    sharding = NamedSharding(mesh, spec)
    text = lower("tpu", (images, 257, 2, 64), sharding=sharding, backend="splash")
    calls = [line for line in text.splitlines() if "@tpu_custom_call" in line]
    assert len(calls) == 2
    assert all(f"tensor<{local}x2x384x64xbf16>" in line for line in calls)


ON_A_MESH = """
import contextlib, sys; sys.path.insert(0, "tests")
import jax, jax.numpy as jnp, numpy as np
from simulated import simulate_devices
simulate_devices(4)
from dav.models.attention import blockwise
from dav.models.flash_attention import splash
from dav.runtime import parallel

mesh = parallel.make_mesh(data=2, fsdp=2)
query = np.asarray(jax.random.normal(jax.random.key(0), (8, 130, 2, 16)))

def gradient(attention, query):
    loss = lambda x: jnp.sum(attention(x, 1.1 * x, 0.9 * x) ** 2)
    return jax.jit(jax.grad(loss))(query)

expected = gradient(blockwise, query)
for context in (contextlib.nullcontext(), jax.set_mesh(mesh)):
    with context:
        placed = jax.device_put(query, parallel.batch_sharding(mesh))
        found = gradient(lambda *x: splash(*x, interpret=True), placed)
    assert found.sharding == placed.sharding, found.sharding
    np.testing.assert_allclose(found, expected, atol=1e-4)
print("equal")
"""


def test_splash_on_a_mesh_computes_the_same(environment):
    """A process of its own: the number of simulated devices is fixed once jax has started."""
    command = [sys.executable, "-c", ON_A_MESH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "equal", done.stderr


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs a machine without a GPU")
def test_cudnn_without_a_gpu_is_refused():
    query = jnp.zeros((1, 5, 1, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="NVIDIA GPU .* use the backend xla"):
        attend(query, query, query, backend="cudnn")


def test_unknown_backend_is_refused():
    query = jnp.zeros((1, 5, 1, 8))
    with pytest.raises(ValueError, match="unknown attention backend 'flash'; choose xla"):
        attend(query, query, query, backend="flash")
