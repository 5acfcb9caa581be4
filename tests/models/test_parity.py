"""Every stage against transformers in float32, random weights, at full size."""

import numpy as np
import pytest
import stages

# The larger networks at the larger sizes take a minute and a half, and the others show the same.
LARGER = ("vitb", "vitl")
CASES = [
    pytest.param(name, size, marks=[pytest.mark.long] * (name in LARGER and size != "252x336"))
    for name in stages.ARCHITECTURES
    for size in stages.SIZES_PX
]


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """One network as (name, architecture, dav's parameters, the model of transformers)."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    architecture = stages.ARCHITECTURES[request.param]
    params = stages.random_params(architecture)
    model = stages.make_transformers_model(params, architecture, tmp_path_factory.mktemp("weights"))
    return request.param, architecture, params, model


@pytest.mark.parametrize(("pair", "size"), CASES, indirect=["pair"])
def test_every_stage_equals_transformers(pair, size):
    name, architecture, params, model = pair
    image = stages.random_image(stages.SIZES_PX[size])
    found = stages.dav_stages(params, architecture, image)
    expected = stages.transformers_stages(model, image)
    assert list(found) == list(expected) == stages.NAMES
    for stage in stages.NAMES:
        assert found[stage].shape == expected[stage].shape, stage
        deviation = expected[stage].std()
        error = np.abs(found[stage] - expected[stage]).max() / deviation
        print(f"{name} {size} {stage:<12} {error:.1e} of {deviation:.2g}")
        limit = 5e-4 if (name, stage) == ("vitl", "depth") else 1e-4
        assert deviation > 1e-3 and error <= limit, (stage, error)
