"""Every stage against transformers in float32, random weights, at full size."""

import dataclasses

import numpy as np
import pytest
import stages

from dav.models.depth_anything import SIZES, V2_TAPS

ARCHITECTURES = {
    "vits": dataclasses.replace(SIZES["vits"], taps=V2_TAPS["vits"], position_offset=0.0),
    "registers": dataclasses.replace(
        SIZES["vits"], registers=4, position_offset=0.0, position_antialias=True
    ),
    "vitb": dataclasses.replace(SIZES["vitb"], position_offset=0.0, max_depth_m=20.0),
    "vitl": dataclasses.replace(SIZES["vitl"], taps=V2_TAPS["vitl"], position_offset=0.0),
}
SIZES_PX = [(518, 518), (518, 686), (252, 336)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request, tmp_path_factory):
    """One network as (name, architecture, dav's parameters, the model of transformers)."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    architecture = ARCHITECTURES[request.param]
    params = stages.random_params(architecture)
    model = stages.make_transformers_model(params, architecture, tmp_path_factory.mktemp("weights"))
    return request.param, architecture, params, model


@pytest.mark.parametrize("size_px", SIZES_PX, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_stage_equals_transformers(pair, size_px):
    name, architecture, params, model = pair
    image = stages.random_image(size_px)
    found = stages.dav_stages(params, architecture, image)
    expected = stages.transformers_stages(model, image)
    assert list(found) == list(expected) == stages.NAMES
    for stage in stages.NAMES:
        assert found[stage].shape == expected[stage].shape, stage
        deviation = expected[stage].std()
        error = np.abs(found[stage] - expected[stage]).max() / deviation
        print(f"{name} {size_px} {stage:<12} {error:.1e} of {deviation:.2g}")
        limit = 5e-4 if (name, stage) == ("vitl", "depth") else 1e-4
        assert deviation > 1e-3 and error <= limit, (stage, error)
