"""Every stage against what transformers computed when tests/make_reference.py was run."""

import make_reference
import numpy as np
import pytest
import stages

LIMITS = {("vitl", "depth"): 5e-4}


@pytest.mark.parametrize("case", make_reference.CASES, ids="-".join)
def test_every_stage_equals_the_committed_reference(case):
    name, size = case
    expected = np.load(make_reference.FOLDER / f"{name}-{size}.npz")
    architecture = stages.ARCHITECTURES[name]
    image = stages.random_image(stages.SIZES_PX[size])
    found = stages.dav_stages(stages.random_params(architecture), architecture, image)
    for stage in stages.NAMES:
        values, deviation = expected[stage], expected[f"{stage}_deviation"]
        error = np.abs(make_reference.sample(found[stage]) - values).max() / deviation
        assert error <= LIMITS.get((name, stage), 1e-4), (stage, error)
        assert abs(found[stage].std() / deviation - 1) < 1e-4
