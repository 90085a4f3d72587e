"""What was expected, written before the runs, and the comparison that answers it."""

from dataclasses import dataclass

from .plan import FAR


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
    distance: int = FAR,
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


HYPOTHESES = (
    compare(
        "Far from the cue, a block in res4 tells crates apart that the baseline cannot.",
        "crates", "res4", "baseline", "more",
    ),
    compare(
        "Control: at the cue, the block brings nothing.",
        "crates", "res4", "baseline", "same", distance=0,
    ),
    compare(
        "At 128 pixels, within the baseline's receptive field, the block brings nothing.",
        "crates", "res4", "baseline", "same", distance=128,
    ),
    compare(
        "At 256 pixels, beyond that field, the block brings as much as far away.",
        "crates", "res4", "baseline", "more", distance=256,
    ),
    compare(
        "It is not capacity: a wider ResNet of the same multiply-adds brings nothing.",
        "crates", "wider", "baseline", "same",
    ),
    compare(
        "It is not capacity: the block is better than the wider ResNet.",
        "crates", "res4", "wider", "more",
    ),
    compare(
        "Gaussian is as good as embedded Gaussian (paper, Table 2a: the form hardly matters).",
        "crates", "gaussian", "res4", "same",
    ),
    compare(
        "Dot product is as good as embedded Gaussian.",
        "crates", "dot_product", "res4", "same",
    ),
    compare(
        "Concatenation is as good as embedded Gaussian.",
        "crates", "concatenation", "res4", "same",
    ),
    compare(
        "Batch norm after W_z holds the block back in a schedule this short.",
        "crates", "res4_bn", "res4", "less",
    ),
    compare(
        "res2 is as good a place as res4 (paper, Table 2b).", "crates", "res2", "res4", "same"
    ),
    compare(
        "res3 is as good a place as res4 (paper, Table 2b).", "crates", "res3", "res4", "same"
    ),
    compare(
        "res5 is a worse place than res4 (paper, Table 2b).", "crates", "res5", "res4", "less"
    ),
    compare(
        "5 blocks are better than 1 (paper, Table 2c).", "crates", "5_blocks", "res4", "more"
    ),
    compare(
        "Far from the face, 4 blocks in the head tell left from right (paper, Table 6).",
        "walkers", "head", "baseline", "more",
    ),
    compare(
        "A block in the backbone alone tells left from right.",
        "walkers", "res4", "baseline", "more",
    ),
    compare(
        "A block in the backbone as well is better than the head's alone (paper, Table 6).",
        "walkers", "head_res4", "head", "more",
    ),
    compare(
        "Control: with the face behind the hands, the head's blocks bring nothing.",
        "walkers", "head", "baseline", "same", distance=0,
    ),
)  # fmt: skip
