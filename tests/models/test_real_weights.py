"""The authors' network and numbers on photographs: needs the data that DAV_EXTRA_DATA names."""

import dataclasses

import jax
import numpy as np
import pytest
import stages

import dav
from dav.images import read_image
from dav.inference import network_input
from dav.models.depth_anything import normalise

PHOTOGRAPHS = ["coco39769_518", "demo01_518", "demo18_392", "demo08_252"]


@pytest.fixture(scope="module")
def model(extra_data):
    return dav.load(extra_data / "weights" / "depth_anything_v2_vits.fp16.safetensors")


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_maps_equal_the_authors_on_photographs(model, extra_data, name):
    expected = np.load(extra_data / "weights" / "reference" / f"{name}.npz")
    image = read_image(extra_data / "samples" / "official_demo" / str(expected["image"]))
    model = dataclasses.replace(model, size_px=int(expected["size_px"]))
    network = network_input(image, tuple(expected["net_shape"].tolist()))
    with jax.default_matmul_precision("highest"):
        found = stages.dav_stages(model.params, model.architecture, normalise(network[None]))
        full = model.predict(image)
    deviation = expected["depth_net"].std()
    error = np.abs(found["depth"][0, ..., 0] - expected["depth_net"]).max()
    print(f"{name}: largest error {error / deviation:.1e} of the standard deviation")
    assert error <= 1e-4 * deviation
    assert full.shape == image.shape[:2] and full.dtype == np.float32
    for tap in (f for f in range(4) if f"tap{f}_patches" in expected):
        tokens = found[f"tap_{tap + 1}"].reshape(expected[f"tap{tap}_patches"].shape)
        error = np.abs(tokens - expected[f"tap{tap}_patches"]).max()
        assert error <= 1e-4 * expected[f"tap{tap}_patches"].std()
    if "depth_full" in expected:
        assert np.abs(full - expected["depth_full"]).max() <= 1e-4 * deviation
        np.testing.assert_allclose(normalise(network), expected["input"], atol=1e-6)
