"""Conversion by the key table, in both directions."""

from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest
from random_weights import TINY, random_official_state

from dav.errors import DavError
from dav.weights.convert import from_params, to_params
from dav.weights.keys import DINOV2, OFFICIAL, TRANSFORMERS, make_table


@pytest.mark.parametrize(
    "architecture", [TINY, replace(TINY, swiglu=True), replace(TINY, registers=4)]
)
@pytest.mark.parametrize("layout", [OFFICIAL, TRANSFORMERS])
def test_there_and_back_is_bit_equal(architecture, layout):
    state = random_official_state(architecture, 0)
    params = to_params(state, make_table(architecture, OFFICIAL), "file")
    foreign = from_params(params, make_table(architecture, layout))
    again = to_params(foreign, make_table(architecture, layout), "file")
    jax.tree.map(np.testing.assert_array_equal, again, params)
    back = from_params(again, make_table(architecture, OFFICIAL))
    assert back.keys() == state.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(back[name], values)
        assert back[name].flags.c_contiguous


def test_the_table_splits_queries_keys_and_values_in_this_order():
    state = random_official_state(TINY, 0)
    params = to_params(state, make_table(TINY, OFFICIAL), "file")
    library = from_params(params, make_table(TINY, TRANSFORMERS))
    fused = state["pretrained.blocks.2.attn.qkv.weight"]
    for index, name in enumerate(("query", "key", "value")):
        np.testing.assert_array_equal(
            library[f"backbone.encoder.layer.2.attention.attention.{name}.weight"],
            fused[64 * index : 64 * (index + 1)],
        )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_become_float32(dtype):
    state = {key: v.astype(dtype) for key, v in random_official_state(TINY, 0).items()}
    params = to_params(state, make_table(TINY, OFFICIAL), "file")
    leaf = params["encoder"]["block_01"]["attn"]["qkv"]["bias"]
    assert leaf.dtype == np.float32
    expected = state["pretrained.blocks.1.attn.qkv.bias"].astype(np.float32)
    np.testing.assert_array_equal(leaf, expected)


def test_one_error_lists_everything_that_does_not_fit():
    state = random_official_state(TINY, 0)
    del state["pretrained.norm.bias"], state["depth_head.projects.2.weight"]
    state["depth_head.extra"] = np.zeros(3, np.float32)
    state["pretrained.blocks.0.ls1.gamma"] = np.zeros(5, np.float32)
    state["pretrained.mask_token"] = np.zeros((1, 64), np.int64)
    with pytest.raises(DavError) as caught:
        to_params(state, make_table(TINY, OFFICIAL), "some.pth")
    for part in (
        "some.pth",
        "missing pretrained.norm.bias, depth_head.projects.2.weight",
        "unknown depth_head.extra",
        "pretrained.blocks.0.ls1.gamma has shape [5] instead of [64]",
        "pretrained.mask_token is int64, not floating point",
    ):
        assert part in str(caught.value)


def test_an_encoder_file_gives_the_encoder_alone():
    whole = random_official_state(TINY, 0)
    state = {
        name.removeprefix("pretrained."): values
        for name, values in whole.items()
        if name.startswith("pretrained.")
    }
    params = to_params(state, make_table(TINY, DINOV2), "file")
    expected = to_params(whole, make_table(TINY, OFFICIAL), "file")
    assert params.keys() == {"encoder"}
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], expected["encoder"])
