"""What was expected of clips, written before the runs, and what answers it."""

from dataclasses import dataclass

from ..plan import FORMS
from .plan import SPACE_DIAL, TIME_DIAL

MARGIN = 5.0
"""Accuracies, in per cent, that are less apart than this count as the same."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value that an arm reaches with every seed.

    Attributes:
        claim: in words.
        arm, kind: of network, and of clips.
        measure: ``accuracy``, in per cent, or ``cross_entropy``.
        at_least, at_most: the value; one of them.
    """

    claim: str
    arm: str
    kind: str
    measure: str = "accuracy"
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference in accuracy, and what it was expected to be.

    Attributes:
        claim: in words.
        first, second: arms; the difference is the mean of `first` minus that of `second`.
        kind: of clips.
        expected: ``more`` than 0, or ``same``: less than MARGIN either way.
        table: of the paper, which claims it of Kinetics; "" if none does.
    """

    claim: str
    first: str
    second: str
    kind: str = "all"
    expected: str
    table: str = ""


_LARGER = "With three times the batch "


def _solved(start: str, arm: str) -> Bar:
    return Bar(claim=f"{start} spacetime block solves the task.", arm=arm, kind="all", at_least=95)


def _unlearned(claim: str, arm: str) -> Bar:
    return Bar(claim=claim, arm=arm, kind="all", measure="cross_entropy", at_least=0.69)


def _one_axis(start: str, axis: str, arm: str) -> tuple[Bar, Bar]:
    """The bars of a block that sees along one axis."""
    kind, at_least = {"space": ("s", 85), "time": ("t", 90)}[axis]
    claim = f"{start} block in {axis} only solves what is apart in {axis},"
    return (
        Bar(claim=claim, arm=arm, kind=kind, at_least=at_least),
        Bar(claim="and not what is apart in both.", arm=arm, kind="st", at_most=63),
    )


BARS = (
    _solved("A", "spacetime"),
    _unlearned("Without a block nothing is learned: a coin's cross-entropy is 0.693.", "none"),
    *_one_axis("A", "space", "space"),
    # Added when one of five seeds had missed the bar on s, with seeds that were not yet run.
    *_one_axis("With twice the iterations a", "space", "space_longer"),
    # Added when that had missed it too: two clips of three tell such a block nothing, so that it
    # takes three times the batch to be told as much as a block in spacetime.
    *_one_axis(f"{_LARGER}a", "space", "space_batch"),
    # Added when that had met it: the same of the others, so that all four have one schedule.
    _solved(f"{_LARGER}a", "spacetime_batch"),
    _unlearned(f"{_LARGER}nothing is learned without a block.", "none_batch"),
    *_one_axis(f"{_LARGER}a", "time", "time_batch"),
    *_one_axis("A", "time", "time"),
    *(
        Bar(claim=f"Control, a local question about the same clips: {what} answers it.",
            arm=arm, kind="control", at_least=99)
        for arm, what in (
            ("none", "C2D without a block"), ("spacetime", "a spacetime block"),
            ("space", "a block in space only"), ("time", "a block in time only"),
        )
    ),
)  # fmt: skip

_FORMS = {form: f"{words} is as good as embedded Gaussian." for form, words in FORMS.items()}
_RES2 = "res2 is as good a place as res3."

COMPARISONS = (
    Comparison(claim="A spacetime block is better than none.",
               first="spacetime", second="none", expected="more", table="2a"),
    Comparison(claim="Control: on the local question it is not.",
               first="spacetime", second="none", kind="control", expected="same"),
    Comparison(claim="A block in space only is better than none.",
               first="space", second="none", expected="more", table="2d"),
    Comparison(claim="A block in time only is better than none.",
               first="time", second="none", expected="more", table="2d"),
    Comparison(claim="Spacetime is better than space only.",
               first="spacetime", second="space", expected="more", table="2d"),
    Comparison(claim="Spacetime is better than time only.",
               first="spacetime", second="time", expected="more", table="2d"),
    *(
        Comparison(claim=f"Objects {task[2:]} pixels apart in a frame: the block is better.",
                   first="spacetime", second="none", kind=task, expected="more")
        for task in SPACE_DIAL if int(task[2:]) > 32
    ),
    Comparison(claim="Objects 8 pixels apart: the baseline is as good as the block.",
               first="spacetime", second="none", kind="s_8", expected="same"),
    *(
        Comparison(claim=f"Objects {task[2:]} frames apart at one place: the block is better.",
                   first="spacetime", second="none", kind=task, expected="more")
        for task in TIME_DIAL if task != "t_1"
    ),
    Comparison(claim="In frames that C2D's pooling joins, the baseline is as good as the block.",
               first="spacetime", second="none", kind="t_1", expected="same"),
    *(
        Comparison(claim=f"The form hardly matters: {claim}",
                   first=form, second="spacetime", expected="same", table="2a")
        for form, claim in _FORMS.items()
    ),
    Comparison(claim="It is not capacity: a wider network of the same multiply-adds is no better.",
               first="wider", second="none", expected="same"),
    Comparison(claim="It is not capacity: the block is better than the wider network.",
               first="spacetime", second="wider", expected="more"),
    Comparison(claim="2 blocks are as good as 1, which leaves no room above it.",
               first="2_blocks", second="spacetime", expected="same", table="2c"),
    Comparison(claim="4 blocks are as good as 1, which leaves no room above it.",
               first="4_blocks", second="spacetime", expected="same", table="2c"),
    Comparison(claim=_RES2,
               first="res2", second="spacetime", expected="same", table="2b"),
    Comparison(claim="A C2D with a block is better than I3D.",
               first="spacetime", second="i3d", expected="more", table="2e"),
    Comparison(claim="I3D with a block is better than I3D.",
               first="i3d_spacetime", second="i3d", expected="more", table="2e"),
    # Added when some seeds of the forms and of res2 had stopped short: at 91.7 %, as a network that
    # takes two of the colours for one, or at 75.0 %, as one that does so with three. Five seeds
    # left these undecided, and three claims above: they have EXTRA_SEEDS as well.
    *(
        Comparison(claim=f"With three times the batch, {claim}", first=f"{arm}_batch_300",
                   second="spacetime_batch_300", expected="same", table=table)
        for arm, claim, table in (
            *((form, claim, "2a") for form, claim in _FORMS.items()), ("res2", _RES2, "2b"),
        )
    ),
    # Added when a block in space had solved what is apart in space with three times the batch and
    # all iterations, and seeds of Gaussian and concatenation had stopped short with half of them.
    *(
        Comparison(claim=f"With three times the batch and all iterations, {claim}",
                   first=f"{first}_batch", second=f"{second}_batch", expected="more", table=table)
        for first, second, table, claim in (
            ("spacetime", "none", "2a", "a spacetime block is better than none."),
            ("space", "none", "2d", "a block in space only is better than none."),
            ("time", "none", "2d", "a block in time only is better than none."),
            ("spacetime", "space", "2d", "spacetime is better than space only."),
            ("spacetime", "time", "2d", "spacetime is better than time only."),
        )
    ),
    *(
        Comparison(claim=f"With three times the batch and all iterations, {_FORMS[form]}",
                   first=f"{form}_batch", second="spacetime_batch", expected="same", table="2a")
        for form in ("gaussian", "concatenation")
    ),
)  # fmt: skip
