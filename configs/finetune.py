"""Fine-tuning: a trained network on one's own images with depth or disparity, still relative.

    python -m dav.main --config=configs/finetune.py:SIZE --config.model.weights=SPEC
        --config.data.root=DATA --config.data.labelled="('folder/NAME',)"

docs/own_data.md says how to prepare one's own images. SIZE is that of the weights: `vits` (the
default), `vitb`, `vitl`, of Depth Anything V2 unless config.model.version is 1; or `mini`, for
networks that configs/student.py made. Held-out images (split `test`) of config.evaluation.sets
are measured before and after; none: nothing is measured.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TEACHER = runpy.run_path(str(Path(__file__).with_name("teacher.py")))
WEIGHTS = {
    "mini": "",
    "vits": "hf:depth-anything/Depth-Anything-V2-Small-hf",
    "vitb": "hf:depth-anything/Depth-Anything-V2-Base-hf",
    "vitl": "hf:depth-anything/Depth-Anything-V2-Large-hf",
}


def get_config(preset="vits"):
    """The recipe of one size; no paper states it."""
    if preset not in WEIGHTS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(WEIGHTS)}")
    config = TEACHER["get_config"](preset)
    config.recipe = "finetune"
    config.preset = preset
    config.model.weights = WEIGHTS[preset]
    config.model.version = 1 if preset == "mini" else 2
    config.data.labelled = ()
    config.steps = 2000
    config.batch.labelled = 8 if preset == "mini" else 16
    # As the paper's for training at large, but warmed up: the head is already trained here.
    encoder_lr, decoder_lr = (1e-4, 2e-4) if preset == "mini" else (5e-6, 5e-5)
    config.optimizer = TEACHER["optimizer"](
        encoder_lr=encoder_lr, decoder_lr=decoder_lr, warmup_steps=100
    )
    config.objective = ConfigDict(dict(gradient_weight=0.5))  # keeps edges sharp; MiDaS' weight
    config.evaluation.sets = ()
    config.evaluation.split = "test"
    config.checkpoint_every = 200
    config.log_every = 10
    for key in ("images", "epochs"):
        if key in config:
            del config[key]
    return config
