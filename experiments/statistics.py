"""Means and differences of seeds, with intervals."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval; without a width if there is one value only."""

    estimate: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return self.text(digits=1)

    def text(self, *, digits: int) -> str:
        """The estimate and its interval with so many digits."""
        estimate, low, high = (f"{v:+.{digits}f}" for v in (self.estimate, self.low, self.high))
        return f"{estimate} [{low}, {high}]"


def mean(values: Sequence[float]) -> Interval:
    """Return the mean with Student's t interval."""
    estimate = float(np.mean(values))
    if len(values) < 2:
        return Interval(estimate=estimate, low=estimate, high=estimate)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)


def spread(values: Sequence[float], *, digits: int = 1) -> str:
    """Return the mean and, of several values, their standard deviation; nothing of none."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values).estimate:.{digits}f}{deviation}"


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return mean(first) - mean(second) with Welch's interval: the variances may differ.

    Raises:
        ValueError: one of them has fewer than 2 values.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("the interval of a difference needs 2 values of each")
    estimate = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == np.ptp(second) == 0:  # as where all are at 100 %: scipy's would be NaN
        return Interval(estimate=estimate, low=estimate, high=estimate)
    with warnings.catch_warnings():
        # Values that are all the same, as 100 %, have a variance of 0, and nothing is lost.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(estimate=estimate, low=float(found.low), high=float(found.high))


def judge(found: Interval | None, *, expected: str, margin: float) -> str:
    """Say whether a difference is what was expected: met, contradicted or undecided.

    Args:
        found: None if it was not measured.
        expected: ``more`` than 0, or ``same``: an interval inside `margin` either way.
    """
    if found is None:
        return NOT_RUN
    same = -margin < found.low and found.high < margin
    if expected == "more":
        return "met" if found.low > 0 else "contradicted" if same or found.high < 0 else "undecided"
    return "met" if same else "undecided" if 0 in found else "contradicted"


def rule(margin: float) -> str:
    """Return how `judge` decides, for a page."""
    return (
        f'"Better" is met by an interval above 0 and contradicted by any other inside ±{margin:g} '
        f'or below 0; "as good as" is met by one inside ±{margin:g} and contradicted by any other '
        "that leaves out 0. All else is undecided."
    )
