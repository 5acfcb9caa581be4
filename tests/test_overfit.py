"""Four images, three hundred steps: the recipe must be able to learn them by heart."""

import jax
import numpy as np
import pytest

from dav import recipe, recipe_data, recipe_network
from dav.data import loader
from dav.data.transforms import resize_example
from dav.evaluation.scoring import Rules, counted, score
from dav.inference import resize_map
from dav.main import parse
from dav.runtime import parallel
from dav.step import predict

STEPS = 300
MAX_ABS_REL = 0.05


@pytest.fixture(scope="module")
def examples(sample_root):
    """Two very different views of the living room and two of the desk."""
    icl = recipe_data.open_examples(sample_root, ("sample/icl",), "train")
    tum = recipe_data.open_examples(sample_root, ("sample/tum",), "train")
    small = [resize_example(e, (56, 84)) for e in (icl[0], icl[70], tum[0], tum[5])]
    return [e | {"depth_m": 1 / np.maximum(e["disparity"], 1e-6)} for e in small]


def test_four_images_are_learned_by_heart(examples):
    config, _, _ = parse(
        [
            "dav",
            "--config=configs/teacher.py",
            f"--config.steps={STEPS}",
            "--config.batch.labelled=4",
            "--config.crop_px=(56, 84)",
        ]
    )
    trainer = recipe.make_trainer(config)
    names = ("image", "disparity", "valid")
    host = {"labelled": {name: np.stack([e[name] for e in examples]) for name in names}}
    batch = loader.to_device(host, parallel.batch_sharding(trainer.mesh))
    state = trainer.init()
    for _ in range(STEPS):
        state, metrics = trainer.step(state, (), batch)
    model = recipe_network.make_model(config)
    disparity = jax.device_get(
        jax.jit(lambda p, x: predict(p, x, model=model))(state.params, host["labelled"]["image"])
    )
    scores = [abs_rel(one, example) for one, example in zip(disparity, examples, strict=True)]
    print("AbsRel", [round(score, 4) for score in scores], "loss", float(metrics["loss"]))
    assert max(scores) < MAX_ABS_REL


def abs_rel(disparity, example):
    """AbsRel of one image after alignment, up to 10 m."""
    rules = Rules(max_depth_m=10.0, min_depth_m=1e-3, crop="none")
    depth_m = example["depth_m"]
    mask, _ = counted(depth_m, example["valid"], rules)
    map_ = resize_map(disparity, depth_m.shape)
    return score(map_, depth_m, mask, rules, how="lstsq_disparity").figures["abs_rel"]
