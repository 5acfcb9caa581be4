"""The teacher: trained on labelled images alone.

    python -m dav.main --config=configs/teacher.py:PRESET --workdir=DIR

`mini` (the default) needs nothing but the sample that comes with dav. `vits`, `vitb` and `vitl`
state the paper's scale (arXiv 2401.10891, §4; its teacher is vitl): 20 epochs over 1.5 M images
of six sets, which `--config.data.root` must hold.
"""

from ml_collections import ConfigDict

PRESETS = ("mini", "vits", "vitb", "vitl")
LABELLED_SETS = ("blended_mvs", "diml", "hrwsi", "irs", "megadepth", "tartanair")
LABELLED_IMAGES = 1_599_000  # the sum of the paper's table 1
# The official DINOv2 encoders; a .pth of the authors will do as well.
DINOV2 = {
    "vits": "hf:facebook/dinov2-small",
    "vitb": "hf:facebook/dinov2-base",
    "vitl": "hf:facebook/dinov2-large",
}
BATCH = 192  # not stated in the paper
EPOCHS = 20


def get_config(preset="mini"):
    """The recipe of one preset."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    config = mini() if preset == "mini" else paper_scale(preset)
    config.recipe = "teacher"
    config.preset = preset
    return config


def mini():
    config = common()
    config.model = ConfigDict(dict(size="mini", encoder_init="random"))
    # Positions are learned from nothing here, so the crops have the grid of the whole images that
    # labels and evaluation look at.
    config.short_side_px = 168
    config.train_short_side_px = 168
    config.crop_px = (168, 224)
    config.steps = 200
    config.batch = ConfigDict(dict(labelled=8))
    config.optimizer = optimizer(encoder_lr=5e-4, decoder_lr=1e-3, warmup_steps=20)
    config.data = data(labelled=("sample/icl", "sample/tum"), workers=0)
    config.evaluation = ConfigDict(
        dict(sets=("sample/icl", "sample/tum", "sample/lab"), split="heldout", max_depth_m=10.0)
    )
    config.checkpoint_every = 50
    return config


def paper_scale(preset):
    config = common()
    config.model = ConfigDict(dict(size=preset, encoder_init=DINOV2[preset]))
    config.short_side_px = 518
    config.train_short_side_px = 518
    config.crop_px = (518, 518)
    config.steps = EPOCHS * LABELLED_IMAGES // BATCH
    config.batch = ConfigDict(dict(labelled=BATCH))
    config.optimizer = optimizer(encoder_lr=5e-6, decoder_lr=5e-5, warmup_steps=0)
    config.data = data(labelled=LABELLED_SETS, workers=-1)
    config.evaluation = ConfigDict(
        dict(sets=("nyuv2", "kitti", "diode/indoor"), split="test", max_depth_m=80.0)
    )
    config.checkpoint_every = 1000
    config.log_every = 50
    return config


def common():
    config = ConfigDict()
    config.seed = 0
    config.log_every = 10  # steps
    config.picture_every = 0  # steps; 0: no pictures
    config.tensorboard = False  # True: events in WORKDIR/tensorboard
    config.wandb = ""  # a project of Weights & Biases
    config.stop_after_skipped = 10  # updates left out in a row
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, min_sharded_elements=2**18))
    return config


def data(*, labelled, workers):
    """Where the data sets stand (root, and raw for those yet to be made), which they are and how
    they are read.

    labelled_weights: nothing: one shuffled sequence of all images; else one number a set, in whose
    proportion its images come, however many there are. workers: processes that decode; 0: two
    threads, enough for small crops; -1: one for every core. It changes nothing but the speed.
    """
    return ConfigDict(
        dict(root="", raw="", labelled=labelled, labelled_weights=(), workers=workers)
    )


def optimizer(*, encoder_lr, decoder_lr, warmup_steps):
    """AdamW with linear decay to zero, as the paper; warm-up and clipping are ours."""
    return ConfigDict(
        dict(
            encoder_lr=encoder_lr,
            decoder_lr=decoder_lr,
            warmup_steps=warmup_steps,
            weight_decay=0.01,
            clip_norm=1.0,
        )
    )
