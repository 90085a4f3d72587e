"""What was expected, written before the runs, and the comparison that answers it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Group:
    """Trials that differ in nothing but their seed."""

    task: str
    distance: int
    arm: str


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A difference in AP, and what it was expected to be.

    Attributes:
        claim: in words.
        first, second: the difference is the mean AP of `first` minus that of `second`.
        expected: ``more`` than 0, ``less``, or ``same``: not told apart from 0.
        measure: ``ap``, or ``ap50`` where the class matters and not the exact place.
    """

    claim: str
    first: Group
    second: Group
    expected: str
    measure: str = "ap"


def compare(
    claim: str,
    task: str,
    first: str,
    second: str,
    expected: str,
    *,
    distance: int,
    measure: str = "ap",
) -> Hypothesis:
    """Return the hypothesis that, of a task at a distance, `first` is `expected` over `second`."""
    return Hypothesis(
        claim=claim,
        first=Group(task=task, distance=distance, arm=first),
        second=Group(task=task, distance=distance, arm=second),
        expected=expected,
        measure=measure,
    )
