"""The student: trained on labelled images and on the teacher's labels for many more.

    python -m dav.main --config=configs/student.py:PRESET --workdir=DIR

Runs whatever is missing, in order: data, teacher, pseudo-labels, student, evaluation. PRESET is
SIZE or SIZE-ARM.

SIZE `mini` (the default) needs nothing but the sample that comes with dav. `vits`, `vitb` and
`vitl` state the paper's scale (arXiv 2401.10891): one pass over 62 M unlabelled images of eight
sets, with a vitl teacher. `v2-vits`, `v2-vitb` and `v2-vitl` are the students of Depth Anything V2
(arXiv 2406.09414): pseudo-labelled images alone, of a vitg teacher. `--config.data.root` must hold
the sets.

ARM takes ingredients away, for the paper's ablation (its table 9), with equal steps and images:
`labelled` images alone (not for V2, whose students have none); `pseudo`-labelled ones too; `strong`
perturbations too; without ARM, feature alignment too.

--config.teacher_weights=SPEC labels with given weights instead of a teacher of one's own.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TEACHER = runpy.run_path(str(Path(__file__).with_name("teacher.py")))
SIZES = ("mini", "vits", "vitb", "vitl", "v2-vits", "v2-vitb", "v2-vitl")
ARMS = ("labelled", "pseudo", "strong")
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
    size, arm = size_and_arm(preset)
    config = TEACHER["get_config"](size.removeprefix("v2-"))
    config.recipe = "student"
    config.preset = preset
    config.teacher = TEACHER["get_config"](teacher_of(size))
    config.teacher.seed = config.get_ref("seed")
    for name in ("picture_every", "tensorboard", "wandb"):
        config.teacher[name] = config.get_ref(name)
    config.teacher_workdir = ""  # WORKDIR/teacher
    config.teacher_weights = ""  # a network to label with, in place of training a teacher
    config.labels_dir = ""  # WORKDIR/labels
    set_labelling(config)
    config.objective = ConfigDict(
        dict(perturb=True, align_features=True, margin=0.85, gradient_weight=0.0, trim=0.0)
    )
    (set_mini if size == "mini" else set_paper_scale)(config)
    if size.startswith("v2-"):
        set_v2(config)
    if arm:
        take_away(config, arm)
    return config


def size_and_arm(preset):
    """(SIZE, ARM) of a preset; raises ValueError for what there is not."""
    size, arm = next(
        ((preset.removesuffix(f"-{a}"), a) for a in ARMS if preset.endswith(f"-{a}")), (preset, "")
    )
    if size not in SIZES:
        raise ValueError(
            f"unknown preset {preset!r}; SIZE: {', '.join(SIZES)}; -{', -'.join(ARMS)}"
        )
    if size.startswith("v2-") and arm == "labelled":
        raise ValueError(
            f"preset {preset!r} would learn from nothing: V2's students have no labelled images; "
            "take the size without v2-, or configs/teacher.py:v2"
        )
    return size, arm


def set_labelling(config):
    """How the teacher looks; what costs and waits there are changes no label."""
    config.label_short_side_px = config.get_ref("short_side_px")  # at which the teacher looks
    config.label_buckets = True  # in nine shapes, aspect ratios rounded; False: each in its own
    config.label_flip = False  # the mean of an image's map and of its mirror image's
    config.label_verify = False  # compare the checksums of all finished shards before starting
    config.label_lease_s = 300.0  # after which a shard is taken over from a process that is silent
    config.label_wait_s = 3600.0  # for room on a full disk
    config.label_cost_per_hour = 0.0  # of one device; 0: not told


def teacher_of(size):
    """The teacher's preset."""
    return "mini" if size == "mini" else "v2" if size.startswith("v2-") else "vitl"


def set_mini(config):
    config.data.unlabelled = ("sample/photos",)
    config.data.unlabelled_weights = ()  # as labelled_weights
    config.batch = ConfigDict(dict(labelled=4, unlabelled=8))  # 1 : 2, as the paper
    config.label_batch = 8  # on each device
    config.steps = 200


def set_paper_scale(config):
    config.data.unlabelled = UNLABELLED_SETS
    config.data.unlabelled_weights = ()
    config.batch = ConfigDict(dict(labelled=64, unlabelled=128))  # 1 : 2; the paper says no more
    config.label_batch = 16
    config.images.unlabelled = UNLABELLED_IMAGES
    del config.epochs
    config.passes = 1  # over the unlabelled images
    whole = config.get_ref("passes") * config.images.get_ref("unlabelled")
    config.steps = whole // config.batch.get_ref("unlabelled")


def set_v2(config):
    """V2 states: no labelled images, the batch, the steps, and the trimming."""
    config.model.version = 2
    config.batch = ConfigDict(dict(unlabelled=192))
    del config.passes
    config.steps = 480_000
    config.data.labelled = ()
    config.images = ConfigDict(dict(unlabelled=UNLABELLED_IMAGES))
    config.objective.trim = 0.1


def take_away(config, arm):
    """Leaves the ingredients up to `arm`; every batch has as many images as before."""
    config.objective.align_features = False
    if arm != "strong":
        config.objective.perturb = False
    if arm == "labelled":
        steps, images = config.steps, sum(config.batch.values())
        config.batch = ConfigDict(dict(labelled=images))
        config.steps = steps
        del config.data.unlabelled, config.data.unlabelled_weights
        del config.teacher, config.teacher_weights
        for name in [key for key in config if key.startswith("label_")]:
            del config[name]
        if "passes" in config:
            del config.passes, config.images.unlabelled
