"""What ``docs/experiments.md`` says about clips, from the raw results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nl_detectron.config import load_config

from ..plan import EXTRA_SEEDS
from ..run import machine_lines
from ..statistics import NOT_RUN, Interval, difference, judge, mean, rule, spread
from ..tables import markdown
from .clips import FAR, FRAMES, HEIGHT, KINDS, RECEPTIVE_FIELD, WIDTH
from .hypotheses import BARS, COMPARISONS, MARGIN, Bar, Comparison
from .plan import CONFIG, LABELS, LARGER_BATCH, LATEST_SEEDS, MORE_SEEDS, SEEDS, plan
from .results import VideoResults, values
from .trial import NUM_VAL, VideoOutcome

_PAPER = {  # top-1 accuracy on Kinetics, of the arms here
    "2a": "C2D 71.8, with one block 72.5 to 72.9",
    "2b": "res2 72.7, res3 72.9, res4 72.7, res5 72.3",
    "2c": "no block 71.8, 1 block 72.7, 5 blocks 73.8, 10 blocks 74.3",
    "2d": "C2D 71.8, space 72.9, time 73.1, spacetime 73.8",
    "2e": "I3D 74.4, C2D with 5 blocks 75.1 (R101), I3D with 5 blocks 76.0",
}


def judge_bar(bar: Bar, found: Sequence[float]) -> str:
    """Say with how many seeds a bar is reached."""
    if not found:
        return NOT_RUN
    if bar.at_least is not None:
        reached = sum(value >= bar.at_least for value in found)
    else:
        assert bar.at_most is not None
        reached = sum(value <= bar.at_most for value in found)
    return f"{'met' if reached == len(found) else 'missed'}, {reached} of {len(found)}"


def compare(
    results: VideoResults, comparison: Comparison, measure: str = "accuracy"
) -> Interval | None:
    """Return the difference of a comparison; None if an arm has fewer than two seeds."""
    first, second = (
        values(results, arm=arm, kind=comparison.kind, measure=measure)
        for arm in (comparison.first, comparison.second)
    )
    return difference(first, second) if min(len(first), len(second)) > 1 else None


def head(results: VideoResults, *, also: Sequence[str] = ()) -> str:
    """Return what was found, from measured figures only.

    Args:
        also: where else a block helps, sentences.
    """

    def both(first: str, second: str, kind: str = "all") -> str:
        comparison = Comparison(claim="", first=first, second=second, kind=kind, expected="more")
        found = compare(results, comparison)
        if found is None:
            return "not measured"
        of_first, of_second = (values(results, arm=arm, kind=kind) for arm in (first, second))
        return (
            f"{mean(of_first).estimate:.1f} against {mean(of_second).estimate:.1f} %, a "
            f"difference of {found} ({len(of_first)} and {len(of_second)} seeds)"
        )

    def by_kind(arm: str) -> str:
        found = [values(results, arm=arm, kind=kind) for kind in KINDS]
        means = [f"{mean(of_kind).estimate:.0f}" for of_kind in found if of_kind]
        return f"{', '.join(means)} %" if means else "not measured"

    return f"""**It helps** where the answer is a match between two places that no feature sees \
together. Are two objects, far apart in space, in time or in both, of one colour? One spacetime \
block in a C2D against none: {both(LARGER_BATCH["spacetime"], LARGER_BATCH["none"])}.\
{"".join(f" {sentence}" for sentence in also)}

**It must reach along the axis that separates them.** Accuracy on objects apart in space, in \
time, in both: a block in space only {by_kind(LARGER_BATCH["space"])}, in time only \
{by_kind(LARGER_BATCH["time"])}, in spacetime {by_kind(LARGER_BATCH["spacetime"])}, no block \
{by_kind(LARGER_BATCH["none"])}.

**It does not help** where a local feature is enough. The same clips, asked for the objects' \
shape: {both("spacetime", "none", "control")}.{_near(results)}

**It costs** {_cost(results)}."""


def _near(results: VideoResults) -> str:
    found = values(results, arm="none", kind="s_8")
    if not found:
        return ""
    return (
        " Nor where convolutions reach: with the objects 8 pixels apart the C2D without a block "
        f"has {mean(found).estimate:.1f} %."
    )


def _cost(results: VideoResults) -> str:
    # Of seeds that have both: a seed's arms ran beside each other, and a machine's speed drifts.
    pairs = [
        (results[other], outcome)
        for trial, outcome in results.items()
        if (trial.setting, trial.task, trial.arm) == ("cpu", "matching", "spacetime")
        and (other := replace(trial, arm="none")) in results
    ]
    if not pairs:
        return "nothing that was measured"
    without, block = pairs[0]
    seconds = [mean([o.seconds for o in some]).estimate for some in zip(*pairs, strict=True)]
    return (
        f"{_increase(block.multiply_adds, without.multiply_adds)} of multiply-adds, "
        f"{_increase(block.parameters, without.parameters)} of parameters and "
        f"{_increase(seconds[1], seconds[0])} of the processor's time in training, in this small "
        "network; [Complexity](complexity.md) has the large ones"
    )


def _increase(value: float, base: float) -> str:
    return f"{100 * (value - base) / base:+.0f} %"


def _outcomes(
    results: VideoResults, task: str, arm: str, setting: str = "cpu"
) -> list[VideoOutcome]:
    found = {
        t.seed: outcome
        for t, outcome in results.items()
        if (t.setting, t.task, t.arm) == (setting, task, arm)
    }
    return [found[seed] for seed in sorted(found)]


def task(examples: str) -> str:
    return f"""## The task

![one clip of each kind]({examples})

A clip has {FRAMES} frames of {HEIGHT} x {WIDTH} pixels. Two objects of one of four colours are \
each visible in one frame: {FAR} pixels apart in one frame (s), at one place in two frames (t), or \
both (st), in equal parts. The label is whether their colours are the same, for half of the clips. \
No feature of the C2D sees both: its receptive field is {RECEPTIVE_FIELD} pixels and two frames. \
Its logits are a sum over features, and for such a sum one half is the best answer to every clip: \
a cross-entropy of 0.693. Its accuracy may still lie between 33 and 67 %: a sum can rank pairs by \
their colours, and "the same" for every pair of some two colours is right that often. So it is \
judged by cross-entropy. The control asks about the same clips whether the objects, which share \
their shape, are squares or crosses."""


def bars(results: VideoResults) -> str:
    rows = []
    for bar in BARS:
        found = values(results, arm=bar.arm, kind=bar.kind, measure=bar.measure)
        wanted = f"at least {bar.at_least:g}" if bar.at_least is not None else ""
        wanted = wanted or f"at most {bar.at_most:g}"
        unit, digits = (" %", 1) if bar.measure == "accuracy" else ("", 3)
        rows.append(
            [
                bar.claim,
                f"{bar.kind}: {wanted}{unit}",
                ", ".join(f"{value:.{digits}f}" for value in found) or NOT_RUN,
                judge_bar(bar, found),
            ]
        )
    return "\n\n".join(
        [
            "## What every seed should reach",
            "Written down before the runs, as all hypotheses (`experiments/video/hypotheses.py`, "
            "in the history of this repository): accuracy, or cross-entropy where it says so, on "
            "the clips of a kind. The first lines and the figures are about the four networks with "
            "three times the batch, which have one schedule.",
            markdown(rows, ["expected", "of every seed", "by seed", "found"]),
        ]
    )


def comparisons(results: VideoResults) -> str:
    rows = []
    for one in COMPARISONS:
        losses = compare(results, one, "cross_entropy")
        loss = losses.text(digits=3) if losses else NOT_RUN
        rows.append([one.claim, one.kind, *_answer(results, one), loss])
    return "\n\n".join(
        [
            "## Hypotheses",
            "The difference is in accuracy, in points, with Welch's 95 % interval over seeds, "
            "corrected neither for their number nor for seeds that were added after a look at it. "
            f"{rule(MARGIN)} Where nothing is learned accuracy wanders "
            "between 33 and 67 % (see above); the difference in cross-entropy, which no "
            "hypothesis was about, does not.",
            markdown(rows, ["expected", "clips", "difference", "found", "in cross-entropy"]),
        ]
    )


def orderings(results: VideoResults) -> str:
    """Return the paper's orderings, Tables 2a to 2e, each with what was found here."""
    rows = []
    for table, figures in _PAPER.items():
        heads = [table, figures]  # in the first row of each table only
        for c in COMPARISONS:
            if c.table == table:
                rows.append([*heads, c.claim, *_answer(results, c)])
                heads = ["", ""]
    return "\n\n".join(
        [
            "## The paper's orderings",
            "Table 2 has top-1 accuracies on Kinetics. Here one block solves the task, so that "
            "nothing can be better than it: whether more blocks are better still (2c) is not "
            "decidable here. Nor is the place beyond res3 (2b): the network ends there, since "
            "with res4 its receptive field would reach across the clip.",
            markdown(rows, ["table", "on Kinetics", "expected here", "difference", "found"]),
        ]
    )


def _answer(results: VideoResults, comparison: Comparison) -> list[str]:
    """The difference, and what is said of it."""
    found = compare(results, comparison)
    said = judge(found, expected=comparison.expected, margin=MARGIN)
    return [str(found or NOT_RUN), said]


def results_table(results: VideoResults) -> str:
    headers = ["clips", "network", *KINDS, "all", "by seed", "cross-entropy"]
    headers += ["parameters", "multiply-adds", "training"]
    rows = []
    planned = dict.fromkeys((t.task, t.arm) for t in plan("cpu"))
    for task_name, arm in planned:
        outcomes = _outcomes(results, task_name, arm)
        if not outcomes:
            continue
        kind = "all" if task_name == "matching" else task_name
        of_all = [o.scores[kind] for o in outcomes]
        rows.append(
            [
                task_name,
                LABELS[arm],
                *(spread([o.scores[k].accuracy for o in outcomes if k in o.scores]) for k in KINDS),
                spread([score.accuracy for score in of_all]),
                ", ".join(f"{score.accuracy:.1f}" for score in of_all),
                spread([score.cross_entropy for score in of_all], digits=3),
                f"{outcomes[0].parameters / 1e3:.1f} k",
                f"{outcomes[0].multiply_adds / 1e6:.2f} M",
                f"{mean([o.seconds for o in outcomes]).estimate:.0f} s",
            ]
        )
    return "\n\n".join(
        [
            "## Results",
            "Accuracy in per cent and cross-entropy in nats on the validation set, mean and "
            "standard deviation over seeds; multiply-adds of one clip; the processor's seconds "
            "of training, which drift from day to day: the cost above is of seeds that have both "
            f"arms. Missing of the plan: {missing(results)}.",
            markdown(rows, headers, right=range(2, len(headers))),
        ]
    )


def missing(results: VideoResults, setting: str = "cpu") -> str:
    """Name the trials of the plan that have not been run."""
    counts: dict[tuple[str, str], int] = {}
    for trial in plan(setting):
        if trial not in results:
            counts[trial.task, trial.arm] = counts.get((trial.task, trial.arm), 0) + 1
    listed = (
        f"{task_name}, {LABELS[arm]} ({count} seeds)" for (task_name, arm), count in counts.items()
    )
    return "; ".join(listed) or "nothing"


def use(results: VideoResults) -> str:
    """Return whether the blocks are used, and where they look."""
    rows = []
    for task_name, arm in dict.fromkeys((t.task, t.arm) for t in plan("cpu")):
        outcomes = _outcomes(results, task_name, arm)
        for number, block in enumerate(outcomes[0].blocks if outcomes else ()):
            uses = [outcome.blocks[number] for outcome in outcomes]
            ratio, share, even = (
                mean([getattr(u, name) for u in uses]).estimate
                for name in ("residual_ratio", "cue_share", "even_share")
            )
            times = f"{share / even:.2f}" if even else "-"
            name = block.block.removeprefix("backbone.")
            shares = [f"{100 * share:.1f} %", f"{100 * even:.1f} %", times]
            rows.append([task_name, LABELS[arm], f"`{name}`", f"{ratio:.3g}", *shares])
    headers = ["clips", "network", "block", "residual ratio", "on the other", "even", "times even"]
    return "\n\n".join(
        [
            "## Are the blocks used?",
            "*Residual ratio*: ||z - x|| / ||x|| after training; 0 is the identity. *On the "
            "other*: share of the attention, looking from the centre of the first object, on "
            "windows that the second one covers (of the absolute weight for forms without "
            "softmax); *even*: what it would be if all windows got the same. Means over seeds.",
            markdown(rows, headers, right=(3, 4, 5, 6)),
        ]
    )


def method(results: VideoResults, machines: Mapping[str, Mapping[str, str]]) -> str:
    hours = sum(outcome.seconds for outcome in results.values()) / 3600
    cfg = load_config(CONFIG)
    return f"""## How it was measured

- Clips are drawn as they are needed, from the trial's seed; each network sees \
{cfg.SOLVER.IMS_PER_BATCH} new ones an iteration. All are judged by the same {NUM_VAL} clips, \
from another stream.
- Networks are the package's `VideoClassifier` with `configs/experiments/matching.yaml`: C2D with \
the stem, res2 and res3 of ResNet-50 at an eighth of the width, from random weights, all arms with \
one schedule unless their name says otherwise. `experiments/video/plan.py` has what differs. The \
block comes before the last residual block of res3, with batch norm after W_z and `INIT_STD` \
{cfg.MODEL.RESNETS.NON_LOCAL.INIT_STD}.
- Colours, sizes, optimizer, schedule and the block's place were chosen in some twenty pilots on \
seeds 101 and 102; seeds {SEEDS[0]} to {SEEDS[-1]} are fresh, seeds {MORE_SEEDS[0]} to \
{MORE_SEEDS[-1]} those of what was asked when one of five had missed a bar, and seeds \
{LATEST_SEEDS[0]} to {LATEST_SEEDS[-1]} when one of these had missed it too: then with three times \
the batch, after pilots on seeds 101 to 103. The same seeds have the forms and res2 with that \
batch, since some of theirs had stopped at 91.7 or 75.0 %, as a network does that takes two or \
three of the four colours for one (a pilot of concatenation that stopped at 75.0 % is right \
about all pairs but those of three colours). Half the iterations were enough for the dot product \
in a pilot (seed 102). With SGD a block in time only stayed at chance; after \
res3's first or last residual block a block in space only stopped near 70 % on s, before the last \
one it came to 99 % (one pilot each). Pilots found one leak: with `POOLING` paper, windows of \
three frames overlap and join frames that the official code's windows of two keep apart, and a \
cross-entropy below 0.69 gave it away.
- Where a block in space had solved its clips with three times the batch, the other networks, \
Gaussian and concatenation were trained so as well, on the same seeds.
- Seeds {EXTRA_SEEDS[0]} to {EXTRA_SEEDS[-1]} were added to what five seeds had left undecided: \
forms and res2 with the larger batch (with all iterations embedded Gaussian, of which one seed had \
stopped at 91.7 %, Gaussian and concatenation), none, space only and the wider network, and both \
arms 8 pixels apart.
- The learning rate falls to zero at the last iteration: a curve that ends flat does not show that \
more iterations would change nothing.
- {len(results)} trials, {hours:.1f} hours of one processor's time for training.
{machine_lines(machines, "video")}"""
