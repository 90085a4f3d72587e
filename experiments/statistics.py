"""Differences between arms, with intervals over seeds."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def difference(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Return mean(first) - mean(second) with Welch's interval; None with fewer than 2 values."""
    if min(len(first), len(second)) < 2:
        return None
    estimate = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == np.ptp(second) == 0:  # scipy's interval is NaN
        return Interval(estimate=estimate, low=estimate, high=estimate)
    with warnings.catch_warnings():
        # Equal values, such as 100 %, have a variance of 0, and no precision is lost.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(estimate=estimate, low=float(found.low), high=float(found.high))


def judge(found: Interval | None, *, expected: str, margin: float) -> str:
    """Judge a difference against the expected one: met, contradicted or undecided.

    Args:
        found: None if it was not measured.
        expected: ``more`` than 0, or ``same``: an interval inside ±`margin`.
    """
    if found is None:
        return NOT_RUN
    same = -margin < found.low and found.high < margin
    if expected == "more":
        return "met" if found.low > 0 else "contradicted" if same or found.high < 0 else "undecided"
    return "met" if same else "undecided" if found.low <= 0 <= found.high else "contradicted"
