"""What looks wrong with a data set, said in sentences, from the figures of its examples."""

import numpy as np

from dav.data.frames import DEPTH_M, PAIRS
from dav.data.statistics import MIRRORS

FEW = 5  # examples, below which nothing is said of a whole set
SURE = 3.0  # standard errors
PLAUSIBLE_MEDIAN_M = (0.2, 200.0)
SKY_DOME_M = 2000.0  # no camera measures so far


def findings(examples):
    """What looks wrong with a set of Measures, in sentences; none if all seems well.

    Made to be read beside the pictures: a finding is a reason to look, not a proof.
    """
    found = [*_mixed(examples), *_pictures(examples)]
    maps = [one for one in examples if np.isfinite(one.valid)]
    if len(maps) >= FEW:
        found += [*_orientation(maps), *_units(maps), *_validity(maps)]
    pairs = [one for one in examples if one.quantity == PAIRS]
    return [*found, *_points(pairs)]


def _mixed(examples):
    kinds = sorted({one.quantity or "no target" for one in examples})
    if len(kinds) > 1:
        yield f"targets of several kinds: {', '.join(kinds)}"


def _pictures(examples):
    flat = sum(one.contrast < 0.01 for one in examples)
    if flat:
        yield f"{flat} of {len(examples)} images are of one colour"


def _orientation(maps):
    edges = np.array([one.edges for one in maps])
    edges = edges[np.isfinite(edges[:, 0])]
    flipped = False
    if len(edges) >= FEW:
        gain = edges - edges[:, :1]
        best = int(gain.mean(axis=0).argmax())
        error = gain[:, best].std(ddof=1) / np.sqrt(len(gain))
        flipped = gain[:, best].mean() > max(0.02, SURE * error)
        if flipped:
            others = ", or of other images" if edges[:, best].mean() < 0.1 else ""
            yield (
                f"flipped{others}? The target's edges agree better with the image's when it is "
                f"mirrored {MIRRORS[best]} ({edges[:, best].mean():.2f} against "
                f"{edges[:, 0].mean():.2f} as it is; better in {(gain[:, best] > 0).mean():.0%} of "
                "the images)"
            )
        elif edges[:, 0].mean() < 0.05:
            yield (
                "targets of other images? Their edges do not agree with the images' "
                f"({edges[:, 0].mean():.2f}; usual are 0.1 to 0.4)"
            )
    rising = np.nanmean([one.rises for one in maps]) if _count(maps, "rises") >= FEW else 1
    if rising < 0.4:
        why = "upside down" if flipped else "depth taken for disparity or the reverse"
        yield f"{why}? In only {rising:.0%} of the images is the lower part nearer than the upper"
    above = np.nanmean([one.sky_above for one in maps]) if _count(maps, "sky_above") >= FEW else 1
    if above < 0.5:
        yield f"upside down? Only {above:.0%} of the sky is in the upper half"


def _units(maps):
    depths = np.array([one.percentiles for one in maps if one.quantity == DEPTH_M])
    depths = depths[np.isfinite(depths).all(axis=1)] if len(depths) else depths
    if len(depths) < FEW:
        return
    low, high = PLAUSIBLE_MEDIAN_M
    middle, far = np.median(depths[:, 1]), np.median(depths[:, 2])
    if not low <= middle <= high:
        yield f"a wrong unit? The median depth of the median image is {middle:.4g} m"
    elif far > SKY_DOME_M:
        yield f"sky that is not marked as sky? In the median image, 1 % is farther than {far:.4g} m"


def _validity(maps):
    valid = np.array([one.valid for one in maps])
    bare = int((valid < 0.05 * np.median(valid)).sum())
    if bare:
        yield (
            f"{bare} of {len(maps)} targets have less than a twentieth of the usual share of valid "
            f"pixels ({np.median(valid):.1%})"
        )


def _points(pairs):
    outside = sum(one.pairs_outside for one in pairs)
    if outside:
        yield f"{outside} points are outside of their image"
    if _count(pairs, "pairs_below") >= FEW:
        below = np.nanmean([one.pairs_below for one in pairs])
        if below < 0.4:
            yield (
                "rows and columns exchanged, or closer and farther? In only "
                f"{below:.0%} of the pairs is the closer point the lower one"
            )


def _count(examples, name):
    return sum(np.isfinite(getattr(one, name)) for one in examples)
