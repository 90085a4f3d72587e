"""What ``docs/experiments.md`` says about keypoints, from the raw results."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nl_detectron.config import load_config
from nl_detectron.inference import Predictor
from nl_detectron.visualization import draw_attention, look

from ..hypotheses import Group
from ..matching import Line, Matching
from ..results import Results
from ..run import machine_lines
from .hypotheses import COMPARISONS, MARGIN
from .people import FAR, KEYPOINTS, NEAR, REACH, SIDE, SIDES, SIZE, draw_person
from .plan import CONFIG, DIAL, LABELS, MORE_SEEDS, KeypointTrial, plan
from .trial import NUM_VAL, SIGMAS, validation_set

MATCHING = Matching(
    name="keypoints",
    plan=plan,
    tasks={"match": "", "first_row": "hat in the first row"},
    labels=LABELS,
    comparisons=COMPARISONS,
    margin=MARGIN,
    cue="hat",
    looks_from="the left glove",
    localization=("by colour", "the keypoints that need no match"),
)
_SEED = 0  # of the examples; any will do


def head(results: Results) -> str:
    """Return what was found, in a sentence for the top of the page."""
    far = MATCHING.versus(results, "blocks_longer", "none_longer", FAR)
    seen = MATCHING.versus(results, "blocks_longer", "none_longer", DIAL[1], "first_row")
    near = MATCHING.versus(results, "blocks", "none", NEAR)
    return f"""In a keypoint head of eight convolutions, where the left glove is the one that has \
the colour of a hat {FAR} pixels away, four blocks against none: {far}; with the hat {DIAL[1]} \
pixels away: {seen}; {NEAR} pixels away: {near}."""


def section(
    results: Results, folder: Path, at: str, machines: Mapping[str, Mapping[str, str]]
) -> str:
    """Return the page's section; its images are in `folder`, which the page calls `at`."""
    return MATCHING.section(
        results,
        folder,
        at,
        task=f"People of {SIZE} x {SIZE} pixels. A person's left glove has the colour of the hat, "
        "one of four, the right one another; which is where is random. The head is the paper's, "
        "eight convolutions on 14 x 14 features, with a block after every second one or with "
        f"none. Without a block a glove sees {REACH} pixels above itself, and the hat is {FAR} "
        "away, edge to edge. AP is of the left and the right glove; a head that finds both and "
        "guesses has an AP50 below 50.",
        arms="AP with blocks and without",
        attention="where a left glove attends, with the first seed's network",
        method=_method(results, machines),
    )


def save_images(results: Results, folder: Path, output: Path) -> None:
    """Write the section's images into `folder`; of attention if its network is in `output`."""
    MATCHING.save_images(
        folder,
        examples=plot_examples(),
        by_distance=MATCHING.plot_distance(results, lines()),
        arms=MATCHING.plot_arms(results, FAR, tuple(LABELS), "ap"),
        attention=plot_attention(output),
    )


def lines() -> list[Line]:
    """Both heads with the hat in the first row, as it always is far away, and dashed in any."""
    drawn = []
    for arm, color in (("none", "C7"), ("blocks", "C0")):
        longer = f"{arm}_longer"
        first_row = [Group(task="first_row", distance=d, arm=longer) for d in DIAL[:-1]]
        any_row = [Group(task="match", distance=d, arm=arm) for d in DIAL]
        far = Group(task="match", distance=FAR, arm=longer)
        drawn += [
            Line(
                label=f"{LABELS[arm]}, hat in the first row",
                color=color,
                dashed=False,
                groups=[*first_row, far],
            ),
            Line(label=f"{LABELS[arm]}, in any row", color=color, dashed=True, groups=any_row),
        ]
    return drawn


def plot_examples() -> Figure:
    """Draw people with their left and right, by the distance of the hat."""
    rng = np.random.default_rng(_SEED)
    figure = Figure(figsize=(7, 2), layout="constrained")
    for panel, distance in zip(figure.subplots(1, 5), (FAR, *reversed(DIAL)), strict=True):
        person = draw_person(rng, distance)
        panel.imshow(person.image)
        for (x, y, _), side in zip(person.keypoints[SIDES].tolist(), "LR", strict=True):
            panel.text(x, y, side, ha="center", va="center_baseline", fontsize=7, weight="bold")
        panel.set_title(f"{distance} pixels", fontsize=9)
        panel.set_axis_off()
    return figure


def plot_attention(output: Path) -> Figure | None:
    """Draw where the left glove attends in each block, with the first seed's network; None if it
    is not in `output`."""
    arm, seed = "blocks_longer", MORE_SEEDS[0]
    trial = KeypointTrial(setting="cpu", task="match", distance=FAR, arm=arm, seed=seed)
    if not trial.weights(output).is_file():
        return None
    predictor = Predictor(trial.config(output), weights=trial.weights(output))
    person = validation_set(trial)[0]
    # The networks take the colours as they are drawn, `look` takes them for BGR.
    seen = look(predictor, person.image, points=[person.left_glove])
    seen = replace(seen, image=person.image)
    figure = Figure(figsize=(7, 2), layout="constrained")
    panels = figure.subplots(1, len(seen.attentions))
    for panel, attention in zip(panels, seen.attentions, strict=True):
        panel.imshow(draw_attention(seen, attention, arrows=1))
        panel.set_title(f"after convolution {attention.block[-1]}", fontsize=9)
        panel.set_axis_off()
    return figure


def _method(results: Results, machines: Mapping[str, Mapping[str, str]]) -> str:
    hours = sum(outcome.seconds for outcome in results.values()) / 3600
    cfg = load_config(CONFIG)
    return f"""\
- People are drawn as they are needed, from the trial's seed, {cfg.SOLVER.IMS_PER_BATCH} new ones \
an iteration, {cfg.SOLVER.MAX_ITER} iterations or, on other seeds, twice as many: with blocks one \
of the first five seeds had stayed at chance, the others had left it after 200 to 500. All heads \
are judged by the same {NUM_VAL} people. Their boxes are given, and the features are those of a \
ResNet's stem, which see 11 pixels: all else is the head's work. \
`configs/experiments/matching_keypoints.yaml` is the config, `experiments/keypoints/plan.py` has \
what differs between the arms. COCO's constant of a wrist, {SIGMAS[0]}, is that of all keypoints.
- {FAR} pixels away the hat is always in the first row; {DIAL[2]} and {DIAL[1]} pixels away its \
row varies by {SIZE - 2 * SIDE - DIAL[2]} and {SIZE - 2 * SIDE - DIAL[1]} pixels and the gloves' \
with it, so that the same match is to be learned at more places. There neither head left chance in \
600 iterations. With the hat in the first row, so that the dial changes the distance alone, pilots \
with blocks left it after 200 to 400, and one without, {DIAL[2]} pixels away, had not after 600 \
(seed 101); they were followed by seeds {MORE_SEEDS[0]} to {MORE_SEEDS[-1]}, twice the iterations \
for both heads.
- What made it learn: keypoints that keep the colours. Of the {len(KEYPOINTS)} keypoints eight are \
the glove and the hat of each colour, visible where a person has it. With the two sides alone the \
head learned where gloves are, and with blocks had 51 and 64 % of the sides right after 600 and \
500 iterations, in two pilots; some twenty pilots of other designs stayed at chance. Pilots were \
run on seeds 101 and 102.
- {len(results)} trials, {hours:.1f} hours of one processor's time for training.
{machine_lines(machines, "keypoints")}"""
