"""The student: trained on labelled images and on the teacher's labels for many more.

    python -m dav.main --config=configs/student.py:PRESET --workdir=DIR

Runs whatever is missing, in order: data, teacher, pseudo-labels, student, evaluation. `mini` (the
default) needs nothing but the sample that comes with dav. `vits`, `vitb` and `vitl` state the
paper's scale (arXiv 2401.10891): one pass over 62 M unlabelled images of eight sets, with a vitl
teacher; `--config.data.root` must hold the sets.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TEACHER = runpy.run_path(str(Path(__file__).with_name("teacher.py")))
UNLABELLED_SETS = (
    "bdd100k",
    "google_landmarks",
    "imagenet21k",
    "lsun",
    "objects365",
    "open_images",
    "places365",
    "sa1b",
)
UNLABELLED_IMAGES = 62_300_000  # the sum of the paper's table 1


def get_config(preset="mini"):
    """The recipe of one preset; config.teacher is the teacher's own recipe."""
    config = TEACHER["get_config"](preset)
    config.recipe = "student"
    mini = preset == "mini"
    config.teacher = TEACHER["get_config"]("mini" if mini else "vitl")
    config.teacher.seed = config.get_ref("seed")
    for name in ("picture_every", "tensorboard", "wandb"):
        config.teacher[name] = config.get_ref(name)
    config.teacher_workdir = ""  # WORKDIR/teacher
    config.labels_dir = ""  # WORKDIR/labels
    config.data.unlabelled = ("sample/photos",) if mini else UNLABELLED_SETS
    config.data.unlabelled_weights = ()  # as labelled_weights
    labelled, unlabelled = (4, 8) if mini else (64, 128)  # 1 : 2, as the paper
    config.batch = ConfigDict(dict(labelled=labelled, unlabelled=unlabelled))
    config.label_batch = 8 if mini else 64
    config.objective = ConfigDict(dict(margin=0.85, perturb=True, align_features=True))
    config.steps = 200 if mini else UNLABELLED_IMAGES // unlabelled
    return config
