"""Whether what a process holds grows: slopes with intervals, the verdicts of benchmarks/soak.py.

Memory goes up and down within every step, so of every window the least counts: what a step needs
for a moment is gone then, what leaks is not. Neighbouring windows are alike: so many tell no more
than fewer independent ones would, and the interval is as wide as with those.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

HOUR_S = 3600.0
WINDOW_S = 120.0
FEWEST = 8  # windows
FREEDOM = 5.0  # degrees of, at least
LARGEST = 0.8  # correlation of neighbours that so few windows can tell from a slope
FLAT, GROWS, UNCLEAR = "flat", "GROWS", "unclear"


@dataclass(frozen=True)
class Trend:
    """A straight line through a series; slope per hour, low … high its 95 % interval."""

    slope: float
    low: float
    high: float
    first: float  # the line's value in the first window
    windows: int

    def verdict(self, limit):
        """FLAT: sure to grow by no more than `limit` an hour; GROWS: sure to grow by more; else
        UNCLEAR, so that a series too short or too noisy to tell never counts as flat."""
        if self.high <= limit:
            return FLAT
        return GROWS if self.low > limit else UNCLEAR

    def figures(self):
        return asdict(self)


def fit(seconds, values, *, window_s=WINDOW_S):
    """The Trend of values at ascending times. Raises ValueError for fewer than FEWEST windows."""
    seconds, values = least_of_windows(seconds, values, window_s)
    if len(seconds) < FEWEST:
        raise ValueError(f"{len(seconds)} windows of {window_s:.0f} s are too few")
    hours = (seconds - seconds[0]) / HOUR_S
    centred, count = hours - hours.mean(), len(hours)
    slope = centred @ values / (centred @ centred)
    first = values.mean() - slope * hours.mean()
    residuals = values - first - slope * hours
    correlation = correlation_of(residuals)
    independent = count * (1 - correlation) / (1 + correlation)
    freedom = max(independent - 2, FREEDOM)
    error = np.sqrt(residuals @ residuals / freedom / (centred @ centred))
    half = float(error * stats.t.ppf(0.975, freedom))
    return Trend(float(slope), float(slope - half), float(slope + half), float(first), count)


def correlation_of(residuals):
    """Of neighbours, as an AR(1) process has it, with what a fitted line takes from it put back."""
    power, count = residuals @ residuals, len(residuals)
    found = residuals[1:] @ residuals[:-1] / power if power else 0.0
    return float(np.clip(found + (1 + 4 * found) / count, 0, LARGEST))


def least_of_windows(seconds, values, window_s):
    """(begin, least value) of every window that has samples, two arrays; the last one, which may be
    a short one, is left out."""
    seconds, values = np.asarray(seconds, float), np.asarray(values, float)
    numbers = ((seconds - seconds[0]) // window_s).astype(int)
    kept = np.unique(numbers)[:-1]
    return kept * window_s, np.array([values[numbers == number].min() for number in kept])


def has_climbed(counts):
    """Whether a number of things, as threads or files, leaks: the least of each third of the time
    is above that of the third before. What is made once, or for a moment, does not climb so."""
    thirds = [min(third.tolist()) for third in np.array_split(counts, 3) if third.size]
    return len(thirds) == 3 and thirds[0] < thirds[1] < thirds[2]
