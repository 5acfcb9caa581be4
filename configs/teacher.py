"""The teacher: trained on labelled images alone.

    python -m dav.main --config=configs/teacher.py:PRESET --workdir=DIR

`mini` (the default) needs nothing but the sample that comes with dav. `vits`, `vitb` and `vitl`
state the paper's scale (arXiv 2401.10891, §4; its teacher is vitl): 20 epochs over 1.5 M images
of six sets. `v2` is the teacher of Depth Anything V2 (arXiv 2406.09414): vitg, on synthetic images
alone. `--config.data.root` must hold the sets.
"""

from ml_collections import ConfigDict

PRESETS = ("mini", "vits", "vitb", "vitl", "v2")
LABELLED_SETS = ("blended_mvs", "diml", "hrwsi", "irs", "megadepth", "tartanair")
LABELLED_IMAGES = 1_599_000  # the sum of the paper's table 1
V2_LABELLED_SETS = ("blended_mvs", "hypersim", "irs", "tartanair", "virtual_kitti2")
V2_LABELLED_IMAGES = 604_000  # the sum of V2's table 7; its text says 595 K
# The official DINOv2 encoders; a .pth of the authors will do as well.
DINOV2 = {
    "vits": "hf:facebook/dinov2-small",
    "vitb": "hf:facebook/dinov2-base",
    "vitl": "hf:facebook/dinov2-large",
    "vitg": "hf:facebook/dinov2-giant",
}
BATCH = 192  # not stated in the paper
EPOCHS = 20


def get_config(preset="mini"):
    """The recipe of one preset."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    config = {"mini": mini, "v2": v2}.get(preset, lambda: paper_scale(preset))()
    config.recipe = "teacher"
    config.preset = preset
    return config


def mini():
    config = common()
    config.model = model("mini", encoder_init="random")
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


def paper_scale(size):
    config = common()
    config.model = model(size, encoder_init=DINOV2[size], dtype="bfloat16")
    config.short_side_px = 518
    config.train_short_side_px = 518
    config.crop_px = (518, 518)
    config.batch = ConfigDict(dict(labelled=BATCH))
    config.data = data(labelled=LABELLED_SETS, workers=-1)
    config.images = ConfigDict(dict(labelled=LABELLED_IMAGES))
    config.epochs = EPOCHS  # over the labelled images
    whole = config.get_ref("epochs") * config.images.get_ref("labelled")
    config.steps = whole // config.batch.get_ref("labelled")
    config.optimizer = optimizer(encoder_lr=5e-6, decoder_lr=5e-5, warmup_steps=0)
    config.evaluation = ConfigDict(
        # Each set's own cap, as its protocol says (docs/evaluation.md).
        dict(sets=("nyuv2", "kitti", "diode/indoor"), split="test", max_depth_m=0.0)
    )
    config.checkpoint_every = 1000
    config.log_every = 50
    config.picture_every = 1000
    return config


def v2():
    """V2 states: data, batch, steps, learning rates, and gradient matching at weight 2."""
    config = paper_scale("vitg")
    config.model.version = 2
    config.batch.labelled = 64
    config.steps = 160_000
    config.data.labelled = V2_LABELLED_SETS
    config.images.labelled = V2_LABELLED_IMAGES
    config.objective.gradient_weight = 2.0
    return config


def common():
    """What all recipes share; none of it is stated in the paper."""
    config = ConfigDict()
    config.seed = 0
    config.objective = ConfigDict(dict(gradient_weight=0.0))
    config.accumulate = 1  # parts that a batch is worked in, to save memory; changes nothing else
    config.stop_after_skipped = 10  # updates in a row left out, as they were not finite
    config.log_every = 10  # steps
    config.picture_every = 0  # steps; 0: no pictures
    config.profile = ()  # (10, 13): XLA's profile of the steps after 10, up to 13
    config.keep_checkpoints = 2  # the newest; older ones are deleted
    config.keep_every = 0  # steps whose checkpoints are never deleted, of those saved; 0: none
    config.tensorboard = False  # True: events in WORKDIR/tensorboard
    config.wandb = ""  # a project of Weights & Biases
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, min_sharded_elements=2**18))
    return config


def model(size, *, encoder_init, dtype="float32"):
    """The network, and what it starts from.

    version: 1 or 2, which blocks the depth head reads. encoder_init: `random`, or the weights of an
    encoder. weights: those of a whole network, in place of encoder_init. dtype: of the networks'
    arithmetic; parameters and losses are float32. remat: what the backward pass computes anew, for
    memory: none, products, blocks, all (dav/models/remat.py).
    """
    return ConfigDict(
        dict(
            size=size,
            version=1,
            encoder_init=encoder_init,
            weights="",
            dtype=dtype,
            remat="none",
        )
    )


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
    """AdamW with linear decay to zero and a larger rate for the decoder, as the paper; weight
    decay, warm-up, clipping and averaging (ema_decay, 0: none) are ours."""
    return ConfigDict(
        dict(
            encoder_lr=encoder_lr,
            decoder_lr=decoder_lr,
            warmup_steps=warmup_steps,
            weight_decay=0.01,
            clip_norm=1.0,
            ema_decay=0.0,
        )
    )
