"""What ``docs/experiments.md`` says about boxes, from the raw results."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nl_detectron.config import load_config
from nl_detectron.inference import Predictor
from nl_detectron.visualization import draw_attention, look

from ..hypotheses import Group
from ..results import Results, values
from ..run import machine_lines
from ..statistics import NOT_RUN, Interval, difference, judge, mean, spread
from ..tables import markdown
from .hypotheses import COMPARISONS, MARGIN
from .plan import CONFIG, DIAL, LABELS, SEEDS, BoxTrial, plan
from .scenes import CLASSES, FAR, HEIGHT, NEAR, RECEPTIVE_FIELD, WIDTH, draw_scene
from .trial import NUM_VAL, validation_set

EXAMPLES, BY_DISTANCE = "boxes_examples.png", "boxes_by_distance.png"
ATTENTION = "boxes_attention.png"
_SEED = 0  # of the examples; any will do


def head(results: Results) -> str:
    """Return what was found, in a sentence for the top of the page."""

    def both(first: str, distance: int) -> str:
        arms = [_of(results, arm, distance) for arm in (first, "none")]
        found = _interval(results, first, "none", distance)
        if found is None:
            return "not measured"
        means = [mean(arm).estimate for arm in arms]
        return f"AP {means[0]:.1f} against {means[1]:.1f}, a difference of {found}"

    return f"""In a detector, where a box's class is its colour and whether a sign {FAR} pixels \
away has the same, one block in res4 against none: {both("res4", FAR)}; with the sign {NEAR} \
pixels away: {both("res4", NEAR)}."""


def section(
    results: Results, folder: Path, at: str, machines: Mapping[str, Mapping[str, str]]
) -> str:
    """Return the page's section; its images are in `folder`, which the page calls `at`."""
    attention = f"![where squares attend, with the first seed's network]({at}/{ATTENTION})"
    return "\n\n".join(
        [
            "## Boxes",
            f"![panoramas far and near]({at}/{EXAMPLES})",
            f"Panoramas of {HEIGHT} x {WIDTH} pixels, each with a square to be found and a cross, "
            f"its sign, {FAR} pixels from edge to edge away. The class of a square is its colour, "
            "one of four, and whether the cross has the same, which is so for half of each. The "
            f"detector is a Faster R-CNN on res4, of which a feature sees {RECEPTIVE_FIELD} "
            "pixels. A detector that finds all squares, and guesses, has an AP50 near 50.",
            f"![AP by distance; dots are seeds]({at}/{BY_DISTANCE})",
            *([attention] if (folder / ATTENTION).is_file() else []),
            "### Boxes: hypotheses",
            "Written down before the runs (`experiments/boxes/hypotheses.py`). The difference is "
            "in COCO's AP of boxes, in points, with Welch's 95 % interval over seeds, not "
            f'corrected for their number. "As good as" is met by an interval inside ±{MARGIN:g}; '
            "an interval that allows both is undecided.",
            _comparisons(results),
            "### Boxes: results",
            "AP in per cent, mean and standard deviation over seeds, and each seed's; *found* is "
            "the AP50 of boxes whatever their class. Of the block: *residual ratio* as above, and "
            "the share of the attention on the sign, looking from the square's centre, against an "
            f"even share. Missing of the plan: {missing(results)}.",
            _table(results),
            _method(results, machines),
        ]
    )


def save_images(results: Results, folder: Path, output: Path) -> None:
    """Write the section's images into `folder`; of attention if its network is in `output`."""
    figures = {
        EXAMPLES: plot_examples(),
        BY_DISTANCE: plot_distance(results),
        ATTENTION: plot_attention(output),
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(folder / name, dpi=110)


def plot_examples() -> Figure:
    """Draw panoramas with their classes, two far from the sign and two near it."""
    rng = np.random.default_rng(_SEED)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for panel, distance in zip(figure.subplots(4, 1), (FAR, FAR, NEAR, NEAR), strict=True):
        scene = draw_scene(rng, "match", distance)
        panel.imshow(scene.image)
        panel.set_title(f"{distance} pixels: {CLASSES[scene.classes[0]]}", fontsize=9)
        panel.set_axis_off()
    return figure


def plot_distance(results: Results) -> Figure:
    """Draw AP against the distance of the sign; dots are seeds."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    panel = figure.subplots()
    for arm, color in (("none", "C7"), ("res4", "C0"), ("wider", "C1")):
        found = {distance: _of(results, arm, distance) for distance in DIAL}
        found = {distance: aps for distance, aps in found.items() if aps}
        means = [mean(aps).estimate for aps in found.values()]
        panel.plot(list(found), means, marker="o", color=color, label=LABELS[arm])
        for distance, aps in found.items():
            panel.plot([distance] * len(aps), aps, ".", color=color, alpha=0.5)
    panel.set_xlabel("pixels between square and sign")
    panel.set_ylabel("AP, %")
    panel.set_ylim(0, 100)
    panel.legend(fontsize=8)
    return figure


def plot_attention(output: Path) -> Figure | None:
    """Draw where a matched square and one alone attend, with the first seed's network; None if it
    is not in `output`."""
    trial = BoxTrial(setting="cpu", task="match", distance=FAR, arm="res4", seed=SEEDS[0])
    if not trial.weights(output).is_file():
        return None
    predictor = Predictor(trial.config(output), weights=trial.weights(output))
    val = validation_set(trial)
    figure = Figure(figsize=(7, 1.9), layout="constrained")
    for answer, panel in zip((1, 0), figure.subplots(2, 1), strict=True):
        scene = next(one for one in val if one.classes[0] % 2 == answer)
        # The networks take the colours as they are drawn, `look` takes them for BGR.
        seen = replace(look(predictor, scene.image, points=[scene.center]), image=scene.image)
        panel.imshow(draw_attention(seen, seen.attentions[0]))
        panel.set_title(CLASSES[scene.classes[0]], fontsize=9)
        panel.set_axis_off()
    return figure


def missing(results: Results, setting: str = "cpu") -> str:
    """Name the trials of the plan that have not been run."""
    counts: dict[tuple[int, str], int] = {}
    for trial in plan(setting):
        if trial not in results and trial.task == "match":
            counts[trial.distance, trial.arm] = counts.get((trial.distance, trial.arm), 0) + 1
    listed = (f"{LABELS[arm]} at {d} pixels ({n} seeds)" for (d, arm), n in counts.items())
    return "; ".join(listed) or "nothing"


def _of(results: Results, arm: str, distance: int) -> list[float]:
    return values(results, Group(task="match", distance=distance, arm=arm))


def _interval(results: Results, first: str, second: str, distance: int) -> Interval | None:
    aps = [_of(results, arm, distance) for arm in (first, second)]
    return difference(*aps) if min(map(len, aps)) > 1 else None


def _comparisons(results: Results) -> str:
    rows = []
    for one in COMPARISONS:
        found = _interval(results, one.first.arm, one.second.arm, one.first.distance)
        said = judge(found, expected=one.expected, margin=MARGIN)
        rows.append([one.claim, f"{one.first.distance}", found or NOT_RUN, said])
    return markdown(rows, ["expected", "pixels", "difference in AP", "found"], right=(1,))


def _table(results: Results) -> str:
    rows = []
    for task, distance, arm in dict.fromkeys((t.task, t.distance, t.arm) for t in plan("cpu")):
        outcomes = [
            results[trial]
            for seed in SEEDS
            if (trial := BoxTrial(setting="cpu", task=task, distance=distance, arm=arm, seed=seed))
            in results
        ]
        if not outcomes:
            continue
        uses = [use for outcome in outcomes for use in outcome.blocks]
        shares = [mean([getattr(u, n) for u in uses]).estimate for n in _USE] if uses else []
        rows.append(
            [
                "colours, the start" if task == "colors" else f"{distance}",
                LABELS[arm],
                ", ".join(f"{o.ap:.1f}" for o in outcomes),
                spread([o.ap for o in outcomes]),
                spread([o.ap50 for o in outcomes]),
                f"{mean([o.localization_ap50 for o in outcomes]).estimate:.1f}",
                f"{outcomes[0].parameters / 1e3:.0f} k",
                f"{outcomes[0].multiply_adds / 1e6:.1f} M",
                f"{mean([o.seconds for o in outcomes]).estimate:.0f} s",
                f"{shares[0]:.2f}" if shares else "",
                f"{100 * shares[1]:.1f} of {100 * shares[2]:.1f} %" if shares else "",
            ]
        )
    headers = ["pixels", "detector", "AP by seed", "AP", "AP50", "found", "parameters"]
    headers += ["multiply-adds", "training", "residual ratio", "on the sign, even"]
    return markdown(rows, headers, right=range(2, len(headers)))


_USE = ("residual_ratio", "cue_share", "even_share")


def _method(results: Results, machines: Mapping[str, Mapping[str, str]]) -> str:
    hours = sum(outcome.seconds for outcome in results.values()) / 3600
    cfg = load_config(CONFIG)
    return f"""### Boxes: how it was measured

- Panoramas are drawn as they are needed, from the trial's seed, {cfg.SOLVER.IMS_PER_BATCH} new \
ones an iteration, {cfg.SOLVER.MAX_ITER} iterations; all detectors are judged by the same \
{NUM_VAL}. `configs/experiments/matching_boxes.yaml` is the config, `experiments/boxes/plan.py` \
has what differs between the arms.
- As detectors start from ImageNet's weights, all arms start from a detector of their seed that \
was trained to find squares and crosses and to name their colours, not whether they match.
- What made it learn, in some sixty pilots on seeds 101 to 103: one square in a panorama and 36 \
panoramas in a batch, not ten squares in each of 8; a linear classifier on a region's features, \
since layers without a norm answered a constant; the colour as a part of the class; no regions \
that overlap a thing by less than half among the background.
- What did not: other objects as distractors, rings of the same colours or of others; the block \
then stayed at chance on most of those seeds. An FPN between res4 and the classifier. A class that \
is matched or not, without the colour. In none of these is the block shown to help.
- {len(results)} trials, {hours:.1f} hours of one processor's time for training.
{machine_lines(machines, "boxes")}"""
