"""Smooth maps of whole numbers in few bytes, exact to within a tolerance at every pixel.

A map is rebuilt from every 8th of its rows and columns by halving the distance three times. A pixel
between two known ones is predicted as their mean; a pixel amid four, as the mean of the pair that
differs less, so that edges stay sharp. Stored are the residuals, in steps of 2 · tolerance + 1.
Predictions start from rebuilt pixels, not from the original, so that errors do not add up.
(Interpolation as in SZ3, arXiv 2111.02925; steps as in JPEG-LS, ISO 14495-1, near-lossless.)

How much the two pixels differ, the contrast, tells how large a residual may be. Where it is low,
most residuals are 0 and four share a byte. The others are bytes in streams by contrast, in each of
which zstd finds a code that suits it.
"""

import numpy as np
import zstandard

LEVELS = 3
LARGEST = 8191  # four times as much is int16: residuals of the coarse grid, signs in bit 0
QUIET = 60  # the highest contrast at which four residuals share a byte
CONTRASTS = (90, 180, 400, 900)  # the highest contrast of each stream but the last
STREAM = np.searchsorted(CONTRASTS, np.arange(LARGEST + 1)).astype(np.uint8)
STREAMS = len(CONTRASTS) + 1
ESCAPE = 3  # in two bits: the residual stands in a stream of its own
WIDE = 255  # in a byte: it stands in the last stream, as uint16
FOUR = np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3  # the four numbers in a byte
ZSTD_LEVEL = 15  # 19 saves 0.5 % and takes three times as long


def compress(values, largest, tolerance):
    """Whole numbers [H, W] in [0, largest], largest ≤ LARGEST → list of byte strings."""
    values = values.astype(np.int32)
    step = 2 * tolerance + 1
    quiet, escapes, streams = [], [], [[] for _ in range(STREAMS)]

    def restore(predicted, contrast, part):
        steps = _steps(values[part], predicted, tolerance)
        numbers, loud = _unsigned(steps).ravel(), contrast.ravel() > QUIET
        kinds = STREAM[contrast.ravel()[loud]]
        for kind, stream in enumerate(streams):
            stream.append(numbers[loud][kinds == kind])
        numbers[loud] = 0
        quiet.append(np.minimum(numbers, ESCAPE))
        escapes.append(numbers[numbers >= ESCAPE] - ESCAPE)
        return np.clip(predicted + steps * step, 0, largest).astype(np.int16)

    steps = (values[:: 2**LEVELS, :: 2**LEVELS] + tolerance) // step
    _refine(np.minimum(steps * step, largest).astype(np.int16), values.shape, restore)
    slopes = np.diff(np.diff(steps, axis=0, prepend=0), axis=1, prepend=0)
    joined = [np.concatenate(numbers) for numbers in (escapes, *streams)]
    return _deflate(np.concatenate(quiet), [_unsigned(slopes).ravel(), *joined])


def decompress(parts, shape, largest, tolerance):
    """The inverse: int16 [H, W] in [0, largest], nowhere off by more than the tolerance, and 0
    where the original is 0."""
    quiet, slopes, *streams = _inflate(parts, 2 * tolerance + 1)
    read = [0] * (STREAMS + 1)

    def take(stream, count):
        read[stream] += count
        source = quiet if stream == STREAMS else streams[stream]
        return source[read[stream] - count : read[stream]]

    def restore(predicted, contrast, _):
        residuals, contrast = take(STREAMS, predicted.size), contrast.ravel()
        loud = np.flatnonzero(contrast > QUIET)
        kinds = STREAM[contrast[loud]]
        counts = np.bincount(kinds, minlength=STREAMS).tolist()
        by_kind = [take(kind, count) for kind, count in enumerate(counts)]
        residuals[loud[np.argsort(kinds, kind="stable")]] = np.concatenate(by_kind)
        predicted += residuals.reshape(predicted.shape)
        return np.clip(predicted, 0, largest, out=predicted)

    slopes = slopes.reshape(_size(shape, LEVELS))
    coarse = slopes.cumsum(0, np.int16).cumsum(1, np.int16)
    return _refine(np.minimum(coarse, largest), shape, restore)


def _size(shape, level):
    return tuple(-(-side // 2**level) for side in shape)


def _refine(known, shape, restore):
    """int16, every 2**LEVELS-th pixel → int16 [*shape]. `restore` gives the pixels of one part of
    the map from (their prediction, their contrast, the part's slices)."""
    for level in reversed(range(LEVELS)):
        size = _size(shape, level)
        rows, columns = size[0] // 2, size[1] // 2
        beside = restore(*_between(known, columns, axis=1), _part(level, 0, 1))
        below = restore(*_between(known, rows, axis=0), _part(level, 1, 0))
        mean, contrast = _between(beside, rows, axis=0)
        mean_along, contrast_along = _between(below, columns, axis=1)
        np.copyto(mean, mean_along, where=contrast_along < contrast)
        amid = restore(mean, np.minimum(contrast, contrast_along), _part(level, 1, 1))
        refined = np.empty(size, np.int16)
        refined[::2, ::2], refined[::2, 1::2] = known, beside
        refined[1::2, ::2], refined[1::2, 1::2] = below, amid
        known = refined
    return known


def _part(level, row, column):
    return np.s_[row << level :: 2 << level, column << level :: 2 << level]


def _between(known, gaps, axis):
    """(mean, contrast) of the pixels before and after each gap; at the border the last is both."""
    before, after = (known[:gaps], known[1:]) if axis == 0 else (known[:, :gaps], known[:, 1:])
    if known.shape[axis] == gaps:
        last = known[-1:] if axis == 0 else known[:, -1:]
        after = np.concatenate([after, last], axis)
    mean = before + after
    mean >>= 1
    contrast = before - after
    return mean, np.abs(contrast, out=contrast)


def _steps(values, predicted, tolerance):
    """How many steps bring each prediction to within the tolerance; beyond 0 for a value of 0,
    which is then met exactly because the result is clipped."""
    step = 2 * tolerance + 1
    error = values - predicted
    nearest = np.sign(error) * ((np.abs(error) + tolerance) // step)
    return np.where(values == 0, error // step, nearest)


def _unsigned(steps):
    """0, −1, 1, −2, 2, … → 0, 1, 2, 3, 4, …"""
    return (steps << 1) ^ (steps >> 31)


def _signed(numbers):
    return (numbers >> 1) ^ -(numbers & 1)


def _deflate(quiet, streams):
    """Numbers 0 … ESCAPE and streams of numbers < 65536 → byte strings."""
    quiet = np.pad(quiet, (0, -quiet.size % 4)).reshape(-1, 4) << np.arange(0, 8, 2)
    wide = np.concatenate([numbers[numbers >= WIDE] for numbers in streams]).astype("<u2")
    narrow = [np.minimum(numbers, WIDE).astype(np.uint8) for numbers in streams]
    zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    parts = (quiet.sum(axis=1).astype(np.uint8), *narrow, wide)
    return [zstd.compress(part.tobytes()) for part in parts]


def _inflate(parts, step):
    """The inverse, as residuals: a list of int16 [N], escapes put in their places."""
    zstd = zstandard.ZstdDecompressor()
    packed, *narrow, wide = (np.frombuffer(zstd.decompress(part), np.uint8) for part in parts)
    numbers = np.concatenate(narrow, dtype=np.int16)
    numbers[numbers == WIDE] = wide.view("<u2")
    cuts = np.cumsum([part.size for part in narrow])
    numbers[cuts[0] : cuts[1]] += ESCAPE
    slopes, escapes, *streams = np.split(_signed(numbers) * np.int16(step), cuts[:-1])
    mark = np.int16(2 * step)
    table = np.where(FOUR == ESCAPE, mark, _signed(FOUR) * step).astype(np.int16)
    quiet = np.take(table.view(np.int64).ravel(), packed, mode="clip").view(np.int16)
    quiet[quiet == mark] = escapes
    return quiet, slopes, *streams
