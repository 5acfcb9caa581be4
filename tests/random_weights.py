"""Random weights in the official layout: every tensor non-trivial, activations of order one."""

import numpy as np

from dav.models.depth_anything import Architecture
from dav.weights.convert import to_params
from dav.weights.keys import OFFICIAL, make_table
from dav.weights.load import Weights

# A network for tests: all of the family's parts, few parameters, the blocks of the mini size.
TINY = Architecture(64, 6, 1, (2, 3, 4, 5), 16, (8, 16, 24, 32), position_grid=3)

POSITIVE_BIAS = "depth_head.scratch.output_conv2.2.bias"  # keeps the last ReLU alive


def random_official_state(architecture, seed):
    """{official name: float32 array} of a whole network; the same for the same seed.

    Weights are N(0, 1 / inputs), biases N(0, 0.1²), norms around 1, LayerScale around 0.3.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for row in make_table(architecture, OFFICIAL):
        (name,) = row.keys
        mean, deviation = _distribution(name, row)
        values = rng.standard_normal(row.shape, np.float32)
        values *= deviation
        values += mean
        state[name] = values
    return state


def random_weights(architecture, seed):
    """The same as Weights of dav."""
    state = random_official_state(architecture, seed)
    params = to_params(state, make_table(architecture, OFFICIAL), "random weights")
    return Weights(params, architecture, "random weights")


def _distribution(name, row):
    """Mean and standard deviation of one tensor."""
    if name == POSITIVE_BIAS:
        return 1.0, 0.1
    if name.endswith("gamma"):
        return 0.3, 0.1
    if row.leaf.endswith("scale"):
        return 1.0, 0.1
    if row.leaf.endswith("kernel"):
        inputs = row.shape[0] if row.axes == (2, 3, 0, 1) else np.prod(row.shape[1:])
        return 0.0, inputs**-0.5
    return 0.0, 0.1 if name.endswith("bias") else 0.5
