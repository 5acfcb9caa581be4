"""Published figures of the benchmarks, as data: what stands beside ours, from where, how sure.

From the tables of the two papers, with what public runs of the same weights gave. Metrics are named
as in dav.evaluation.results, shares and not percent. None of the papers states crops, caps, the
splits or the masks of its zero-shot tables; `Benchmark.doubt` says what that leaves open.
"""

from dataclasses import dataclass

V1 = "Yang et al., Depth Anything (arXiv 2401.10891), Table 2"
V2 = "Yang et al., Depth Anything V2 (arXiv 2406.09414), Table 2"
V2_PAIRS = "Yang et al., Depth Anything V2 (arXiv 2406.09414), Table 3"
V2_SCENES = "Yang et al., Depth Anything V2 (arXiv 2406.09414), Table 14"
REPRODUCTION = "public reproduction with the released weights (plumbline-bench 0.2, June 2026)"


@dataclass(frozen=True)
class Row:
    """One model's figures on one benchmark."""

    model: str
    figures: dict  # metric → float
    source: str
    remark: str = ""
    is_paper: bool = True  # False: somebody's run of the paper's weights


@dataclass(frozen=True)
class Benchmark:
    """What the rows of one data set were measured on."""

    name: str  # as the papers call it
    images: int
    is_exact: bool  # whether `images` is the very count
    reproduces: bool  # whether a public run of the released weights comes near the paper's AbsRel
    doubt: str  # what is not known to be the same

    def is_whole(self, images, left_out=0):
        """Whether figures over `images` images are over this benchmark, not over a part of it, of
        which at most one in a hundred was left out for want of valid pixels."""
        if left_out > 0.01 * self.images:
            return False
        off = abs(images + left_out - self.images)
        return off == 0 if self.is_exact else off <= 0.1 * self.images


BENCHMARKS = {
    "kitti": Benchmark(
        "KITTI", 652, True, True,
        "Crop and cap are not stated; with Garg's crop and 80 m, public runs of the V2 weights "
        "come within .003 of the paper's AbsRel.",
    ),
    "nyuv2": Benchmark(
        "NYUv2", 654, True, True,
        "Edition and crop are not stated; with raw depth, Eigen's crop and 10 m, public runs of "
        "the V2 weights come within .004 of the paper's AbsRel.",
    ),
    "sintel": Benchmark(
        "Sintel", 1064, True, False,
        "Not known to be the same protocol: no public evaluation reproduces this AbsRel (about .23 "
        "against .49 with V2 weights) though δ1 is close. Rendering pass, mask and cap are not "
        "stated. Perhaps the papers' AbsRel is taken in disparity; the metric abs_rel_disparity "
        "tells.",
    ),
    "ddad": Benchmark(
        "DDAD", 3950, True, False,
        "Not known to be the same protocol: no public evaluation reproduces these figures; "
        "cameras, crop and cap are not stated.",
    ),
    "eth3d": Benchmark(
        "ETH3D", 454, True, False,
        "Not known to be the same protocol: no public evaluation reproduces this AbsRel (about two "
        "thirds of it with the V2 weights). Perhaps the papers' AbsRel is taken in disparity; the "
        "metric abs_rel_disparity tells.",
    ),
    "diode/indoor": Benchmark(
        "DIODE", 325, True, True,
        "The images are not stated; the 325 indoor ones come within .002 of the paper's AbsRel, "
        "all 771 do not.",
    ),
    "da2k": Benchmark(
        "DA-2K", 1000, False, True,
        "Accuracy is over pairs; the paper rounds the number of images.",
    ),
}  # fmt: skip
OTHER_EDITIONS = {
    "nyuv2/filled": "Not comparable with published figures: they agree with raw depth (nyuv2), and "
    "filled holes give others.",
    "nyuv2/bts": "Not comparable with published figures: depth is rounded and images compressed "
    "again; nyuv2 is the edition that reproduces them.",
    "sintel/clean": "Not compared with published figures: they do not state the rendering pass, "
    "and stand beside the final one (sintel).",
    "diode/outdoor": "Not comparable with published figures: they agree with the indoor images, "
    "diode/indoor.",
    "ddad/all": "Not compared with published figures: they do not state the cameras, and stand "
    "beside the front one (ddad).",
}

SEEN = "trained on this data set's training part"
SETS = ("kitti", "nyuv2", "sintel", "ddad", "eth3d", "diode/indoor")
# AbsRel and δ1 on SETS; V2's table leaves DDAD out.
ZERO_SHOT = (
    ("MiDaS v3.1 BEiT-L", V1,
     (.127, .850), (.048, .980), (.587, .699), (.251, .766), (.139, .867), (.075, .942)),
    ("Depth Anything V1 ViT-S", V1,
     (.080, .936), (.053, .972), (.464, .739), (.247, .768), (.127, .885), (.076, .939)),
    ("Depth Anything V1 ViT-B", V1,
     (.080, .939), (.046, .979), (.432, .756), (.232, .786), (.126, .884), (.069, .946)),
    ("Depth Anything V1 ViT-L", V1,
     (.076, .947), (.043, .981), (.458, .760), (.230, .789), (.127, .882), (.066, .952)),
    ("Depth Anything V2 ViT-S", V2,
     (.078, .936), (.053, .973), (.500, .718), None, (.142, .851), (.073, .942)),
    ("Depth Anything V2 ViT-B", V2,
     (.078, .939), (.049, .976), (.495, .734), None, (.137, .858), (.068, .950)),
    ("Depth Anything V2 ViT-L", V2,
     (.074, .946), (.045, .979), (.487, .752), None, (.131, .865), (.066, .952)),
    ("Depth Anything V2 ViT-G", V2,
     (.075, .948), (.044, .979), (.506, .772), None, (.132, .862), (.065, .954)),
)  # fmt: skip
# Public runs of the released weights in the protocols that `doubt` names.
REPRODUCED = {
    "kitti": {
        "Depth Anything V2 ViT-S": {"abs_rel": .0770},
        "Depth Anything V2 ViT-B": {"abs_rel": .0756},
        "Depth Anything V2 ViT-L": {"abs_rel": .0710},
    },
    "nyuv2": {
        "Depth Anything V2 ViT-S": {"abs_rel": .0510, "delta1": .9729},
        "Depth Anything V2 ViT-B": {"abs_rel": .0456},
        "Depth Anything V2 ViT-L": {"abs_rel": .0428},
    },
    "sintel": {"Depth Anything V2 (size not given)": {"abs_rel": .2321}},
    "eth3d": {
        "Depth Anything V2 ViT-S": {"abs_rel": .1012},
        "Depth Anything V2 ViT-B": {"abs_rel": .0936},
        "Depth Anything V2 ViT-L": {"abs_rel": .0888},
    },
    "diode/indoor": {
        "Depth Anything V2 ViT-S": {"abs_rel": .0720, "delta1": .9431},
        "Depth Anything V2 ViT-B": {"abs_rel": .0695},
    },
}  # fmt: skip

SCENES = (
    "indoor", "outdoor", "non_real", "transparent_reflective",
    "adverse_style", "aerial", "underwater", "object",
)  # fmt: skip
# Per cent of pairs, on SCENES and over all pairs.
PAIRS = (
    ("Marigold", V2_PAIRS, None, 86.8),
    ("GeoWizard", V2_PAIRS, None, 88.1),
    ("DepthFM", V2_PAIRS, None, 85.8),
    ("Depth Anything V1 ViT-L", V2_PAIRS, None, 88.5),
    ("Depth Anything V2 ViT-S", V2_SCENES, (92.9, 93.0, 98.4, 94.4, 95.7, 96.4, 99.2, 96.6), 95.3),
    ("Depth Anything V2 ViT-B", V2_SCENES, (96.2, 94.8, 98.7, 96.3, 96.7, 99.0, 100.0, 97.3), 97.0),
    ("Depth Anything V2 ViT-L", V2_SCENES, (96.4, 93.9, 99.0, 96.3, 97.3, 99.5, 99.2, 98.0), 97.1),
    ("Depth Anything V2 ViT-G", V2_PAIRS, None, 97.4),
)


def published_for(data):
    """The rows published for data set `data`, the papers' first; () for a set that has none."""
    if data == "da2k":
        return tuple(_pair_row(*line) for line in PAIRS)
    return _paper_rows(data) + _reproduced_rows(data) if data in SETS else ()


def _paper_rows(data):
    column = SETS.index(data)
    return tuple(
        Row(
            model,
            dict(zip(("abs_rel", "delta1"), cells[column], strict=True)),
            source,
            SEEN if model.startswith("MiDaS") and data in ("kitti", "nyuv2") else "",
        )
        for model, source, *cells in ZERO_SHOT
        if cells[column] is not None
    )


def _reproduced_rows(data):
    return tuple(
        Row(model, figures, REPRODUCTION, is_paper=False)
        for model, figures in REPRODUCED.get(data, {}).items()
    )


def _pair_row(model, source, scenes, overall):
    figures = {"accuracy": overall / 100}
    if scenes is not None:
        shares = zip(SCENES, scenes, strict=True)
        figures |= {f"accuracy {scene}": percent / 100 for scene, percent in shares}
    return Row(model, figures, source)
