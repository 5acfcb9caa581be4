"""The key table against the network itself."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from random_weights import random_official_state

from dav.models.depth_anything import SIZES, DepthAnything
from dav.weights.keys import DINOV2, LAYOUTS, OFFICIAL, TRANSFORMERS, make_table

ARCHITECTURES = {**SIZES, "registers": replace(SIZES["mini"], registers=4)}


def leaves_of(architecture):
    """{leaf: shape} of the network as it initialises itself."""
    image = jax.ShapeDtypeStruct((1, 28, 28, 3), np.float32)
    tree = jax.eval_shape(DepthAnything(architecture).init, jax.random.key(0), image)["params"]
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(part.key for part in path): leaf.shape for path, leaf in flat}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_leaf_has_a_row_of_its_shape(name):
    expected = leaves_of(ARCHITECTURES[name])
    for layout in LAYOUTS:
        rows = make_table(ARCHITECTURES[name], layout)
        shapes = {row.leaf: tuple(row.shape[axis] for axis in row.axes) for row in rows}
        wanted = {
            leaf: shape
            for leaf, shape in expected.items()
            if layout.decoder is not None or leaf.startswith("encoder/")
        }
        assert len(rows) == len(shapes)
        assert shapes == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_key_is_used_twice(layout):
    for architecture in ARCHITECTURES.values():
        keys = [key for row in make_table(architecture, layout) for key in row.keys]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("size", "values"), [("vits", 24_785_089), ("vitl", 335_315_649)])
def test_the_published_sizes_have_the_published_parameters(size, values):
    for layout in (OFFICIAL, TRANSFORMERS):
        table = make_table(SIZES[size], layout)
        assert sum(np.prod(row.shape, dtype=np.int64) for row in table) == values


def test_dinov2_is_the_encoder_without_prefix():
    dinov2 = [row.keys[0] for row in make_table(SIZES["vitg"], DINOV2)]
    whole = [row.keys[0] for row in make_table(SIZES["vitg"], OFFICIAL)]
    assert [f"pretrained.{key}" for key in dinov2] == whole[: len(dinov2)]
    assert "blocks.39.mlp.w12.weight" in dinov2


def test_random_weights_are_reproducible_and_nowhere_trivial():
    first, again = (random_official_state(SIZES["mini"], 3) for _ in range(2))
    other = random_official_state(SIZES["mini"], 4)
    for name, values in first.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, again[name])
        assert not np.array_equal(values, other[name])
        assert values.size == 1 or values.std() > 0.01
