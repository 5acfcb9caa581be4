"""Histograms of what a data set's examples have, as SVG."""

import html
from collections import Counter

import numpy as np

from dav.data import statistics
from dav.data.frames import DEPTH_M, PAIRS

BARS_SHOWN = 8  # of what is counted by name


def charts(measures, kind):
    """Histograms of what the examples have; `kind` is the quantity of their targets, if one."""
    maps = [one for one in measures if np.isfinite(one.valid)]
    drawn = _map_charts(maps, kind) if maps else [_brightness_chart(measures)]
    if kind == PAIRS:
        counts = Counter(f"{one.pairs} pairs" for one in measures)
        drawn.append(_named_chart(counts, "pairs of an image"))
    drawn.append(_named_chart(Counter(f"{m.width}×{m.height}" for m in measures), "sizes, W×H"))
    if kind == DEPTH_M:
        units = Counter(f"{one.unit:.4g} m" if one.unit else "logarithmic" for one in maps)
        drawn.append(_named_chart(units, "stored steps"))
    return f'<div class="charts">{"".join(drawn)}</div>'


def _map_charts(maps, kind):
    drawn = []
    counts = np.sum([one.depth_counts for one in maps], axis=0)
    if kind == DEPTH_M and counts.any():
        drawn.append(_depth_chart(counts))
    counts = np.sum([one.disparity_counts for one in maps], axis=0)
    ticks = [(0, "far"), (0.5, "½"), (1, "near")]
    title = "disparity, share of each map's 98th percentile"
    drawn.append(bar_chart(counts, title=title, ticks=ticks))
    counts, _ = np.histogram([one.valid for one in maps], statistics.SHARE_EDGES)
    ticks = [(0, "0 %"), (0.5, "50 %"), (1, "100 %")]
    drawn.append(bar_chart(counts, title="valid share of a target", ticks=ticks))
    return drawn


def _brightness_chart(measures):
    counts, _ = np.histogram([one.brightness for one in measures], statistics.SHARE_EDGES)
    return bar_chart(counts, title="mean brightness", ticks=[(0, "black"), (1, "white")])


def _depth_chart(counts):
    """Cut to where there is anything, and a decade at least."""
    at = np.flatnonzero(counts > 1e-4 * counts.sum())
    start, stop = max(at[0] - 2, 0), min(at[-1] + 3, len(counts))
    low, high = np.log10(statistics.DEPTH_EDGES_M[[start, stop]])
    marks = [m * 10.0**e for e in range(-2, 5) for m in (1, 2, 5)]
    ticks = [((np.log10(m) - low) / (high - low), f"{m:g} m") for m in marks]
    ticks = [tick for tick in ticks if 0 <= tick[0] <= 1]
    every = -(-len(ticks) // 7)
    return bar_chart(counts[start:stop], title="depth", ticks=ticks[::every])


def bar_chart(counts, *, title, ticks, width=366, height=190):
    """An SVG histogram; `ticks` are (place from 0 to 1, label)."""
    left, right, top, bottom = 14, 14, 30, 26
    across, high = (width - left - right) / len(counts), height - top - bottom
    most = max(float(np.max(counts)), 1e-9)
    parts = [f'<text x="{left}" y="18" class="title">{html.escape(title)}</text>']
    base = height - bottom
    for index, count in enumerate(counts):
        tall = high * float(count) / most
        if tall > 0:
            x, tall = left + index * across, max(tall, 0.8)
            parts.append(
                f'<rect x="{x:.1f}" y="{base - tall:.1f}" width="{max(across - 1, 1):.1f}" '
                f'height="{tall:.1f}"/>'
            )
    parts.append(f'<line x1="{left}" x2="{width - right}" y1="{base}" y2="{base}"/>')
    for place, label in ticks:
        x = left + place * (width - left - right)
        anchor = "start" if place < 0.04 else "end" if place > 0.96 else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{height - 9}" text-anchor="{anchor}">{html.escape(label)}</text>'
        )
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _named_chart(counter, title):
    """Horizontal bars of the most common, with their names and shares."""
    bars = counter.most_common(BARS_SHOWN)
    if len(counter) > BARS_SHOWN:
        others = counter.total() - sum(count for _, count in bars)
        bars.append((f"{len(counter) - BARS_SHOWN} others", others))
    most = max((count for _, count in bars), default=1)
    parts = [f'<text x="14" y="18" class="title">{html.escape(title)}</text>']
    for index, (name, count) in enumerate(bars):
        y, share = 34 + 17 * index, count / counter.total()
        parts.append(f'<text x="14" y="{y + 10}">{html.escape(name)}</text>')
        parts.append(f'<rect x="130" y="{y}" width="{170 * count / most:.1f}" height="12"/>')
        parts.append(f'<text x="352" y="{y + 10}" text-anchor="end">{share:.1%}</text>')
    return f'<svg viewBox="0 0 366 190" role="img">{"".join(parts)}</svg>'
