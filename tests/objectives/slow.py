"""The objectives once more, written from the papers' formulas: NumPy, float64, loops over images.

Each takes what dav's takes and returns (sum, count).
"""

import numpy as np


def affine_invariant(prediction, target, valid, *, trim=0.0, mean_over_kept=True):
    return _total(
        _region_loss(*maps, trim, mean_over_kept)
        for maps in zip(prediction, target, valid, strict=True)
    )


def gradient_matching(prediction, target, valid, *, scales=4):
    return _total(
        _gradient_loss(*maps, scales) for maps in zip(prediction, target, valid, strict=True)
    )


def cutmix(prediction, target, valid, other, other_valid, masks, *, trim=0.0):
    losses = []
    for p, d, v, other_d, other_v, mask in zip(
        prediction, target, valid, other, other_valid, masks, strict=True
    ):
        inside = _region_loss(p, other_d, other_v & mask, trim)
        outside = _region_loss(p, d, v & ~mask, trim)
        share = np.sum(mask) / mask.size
        parts = [w * x for w, x in ((share, inside), (1 - share, outside)) if x is not None]
        losses.append(sum(parts) if parts else None)
    return _total(losses)


def feature_alignment(tokens, frozen, *, margin):
    total, count = 0.0, 0
    pairs = zip(
        tokens.reshape(-1, tokens.shape[-1]), frozen.reshape(-1, frozen.shape[-1]), strict=True
    )
    for f, g in pairs:
        f, g = f.astype(np.float64), g.astype(np.float64)
        cosine = np.sum(f * g) / (np.linalg.norm(f) * np.linalg.norm(g))
        if cosine <= margin:
            total, count = total + 1 - cosine, count + 1
    return total, count


def scale_invariant_log(predicted_m, depth_m, valid, *, variance_weight, factor=1.0):
    losses = []
    for p, d, v in zip(predicted_m, depth_m, valid, strict=True):
        if not v.any():
            continue
        g = np.log(p[v].astype(np.float64)) - np.log(d[v].astype(np.float64))
        losses.append(factor * np.sqrt(np.mean(g**2) - variance_weight * np.mean(g) ** 2))
    return _total(losses)


def normalise(x):
    """The valid pixels [n] of a map less their median, over the mean deviation from it."""
    x = x.astype(np.float64)
    centred = x - np.median(x)
    return centred / np.mean(np.abs(centred))


def has_target(target, valid):
    return len(np.unique(target[valid])) > 1


def _region_loss(prediction, target, region, trim=0.0, mean_over_kept=True):
    if not has_target(target, region):
        return None
    losses = np.abs(normalise(prediction[region]) - normalise(target[region]))
    # The product in float32, as ours: 0.7 · 10 must not be 6 in one and 7 in the other.
    kept = len(losses) - int(np.floor(np.float32(trim) * np.float32(len(losses))))
    return np.sum(np.sort(losses)[:kept]) / (kept if mean_over_kept else len(losses))


def _gradient_loss(prediction, target, valid, scales):
    if not has_target(target, valid):
        return None
    difference = np.full(valid.shape, np.nan)
    difference[valid] = normalise(prediction[valid]) - normalise(target[valid])
    loss, pairs = 0.0, 0
    for k in range(scales):
        kept = difference[:: 2**k, :: 2**k]
        slopes = np.concatenate([np.diff(kept, axis=axis).ravel() for axis in (0, 1)])
        slopes = slopes[np.isfinite(slopes)]
        pixels = np.sum(np.isfinite(kept))
        loss += np.sum(np.abs(slopes)) / pixels if pixels else 0.0
        pairs += len(slopes)
    return loss if pairs else None


def _total(losses):
    losses = [x for x in losses if x is not None]
    return sum(losses), len(losses)
