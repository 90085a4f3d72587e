"""What ``docs/experiments.md`` says about boxes, from the raw results."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nl_detectron.config import load_config
from nl_detectron.inference import Predictor
from nl_detectron.visualization import draw_attention, look

from ..hypotheses import Group
from ..matching import Line, Matching
from ..plan import EXTRA_SEEDS
from ..results import Results
from ..run import machine_lines
from .hypotheses import COMPARISONS, MARGIN
from .plan import CONFIG, DIAL, FORMS_AND_PLACES, LABELS, LATEST_SEEDS, MORE_SEEDS, BoxTrial, plan
from .scenes import CLASSES, FAR, HEIGHT, NEAR, RECEPTIVE_FIELD, RINGS, WIDTH, draw_scene
from .trial import NUM_VAL, validation_set

MATCHING = Matching(
    name="boxes",
    plan=plan,
    tasks={"match": "", "among": "among rings"},
    labels=LABELS,
    comparisons=COMPARISONS,
    margin=MARGIN,
    cue="sign",
    looks_from="the square's centre",
    localization=("found", "boxes whatever their class"),
)
_SEED = 0  # of the examples; any will do


def head(results: Results) -> str:
    """Return what was found, in a sentence for the top of the page."""
    far, near, far_among, near_among = (
        MATCHING.versus(results, "res4", "none", distance, task)
        for task, distance in product(MATCHING.tasks, (FAR, NEAR))
    )
    return f"""In a detector, where a box's class is its colour and whether a sign {FAR} pixels \
away has the same, one block in res4 against none: {far}; with {RINGS} distractors: {far_among}. \
With the sign {NEAR} pixels away: {near}; with {RINGS} distractors: {near_among}."""


def section(
    results: Results, folder: Path, at: str, machines: Mapping[str, Mapping[str, str]]
) -> str:
    """Return the page's section; its images are in `folder`, which the page calls `at`."""
    return MATCHING.section(
        results,
        folder,
        at,
        task=f"Panoramas of {HEIGHT} x {WIDTH} pixels, each with a square to be found and a cross, "
        f"its sign, {FAR} pixels from edge to edge away. The class of a square is its colour, one "
        "of four, and whether the cross has the same, which is so for half of each. Where there "
        f"are distractors, {RINGS} rings are drawn as well, of any of these colours and anywhere. "
        f"The detector is a Faster R-CNN on res4, of which a feature sees {RECEPTIVE_FIELD} "
        "pixels. A detector that finds all squares, and guesses, has an AP50 near 50.",
        arms="AP50 by form and place",
        attention="where squares among rings attend, with the first seed's network",
        method=_method(results, machines),
    )


def save_images(results: Results, folder: Path, output: Path) -> None:
    """Write the section's images into `folder`; of attention if its network is in `output`."""
    MATCHING.save_images(
        folder,
        examples=plot_examples(),
        by_distance=MATCHING.plot_distance(results, lines()),
        arms=MATCHING.plot_arms(results, FAR, FORMS_AND_PLACES, "ap50"),
        attention=plot_attention(output),
    )


def lines() -> list[Line]:
    """Each arm, without rings and dashed among them."""
    arms = {"none": "C7", "res4": "C0", "wider": "C1"}
    return [
        Line(
            label=", ".join(filter(None, (LABELS[arm], note))),
            color=color,
            dashed=bool(note),
            groups=[Group(task=task, distance=distance, arm=arm) for distance in DIAL],
        )
        for (task, note), (arm, color) in product(MATCHING.tasks.items(), arms.items())
    ]


def plot_examples() -> Figure:
    """Draw panoramas with their classes, far from the sign and near it, alone and among rings."""
    rng = np.random.default_rng(_SEED)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    shown = product(MATCHING.tasks, (FAR, NEAR))
    for panel, (task, distance) in zip(figure.subplots(4, 1), shown, strict=True):
        scene = draw_scene(rng, task, distance)
        panel.imshow(scene.image)
        panel.set_title(f"{distance} pixels: {CLASSES[scene.classes[0]]}", fontsize=9)
        panel.set_axis_off()
    return figure


def plot_attention(output: Path) -> Figure | None:
    """Draw where a matched square and one alone attend among rings, with the first network; None
    if it is not in `output`."""
    trial = BoxTrial(setting="cpu", task="among", distance=FAR, arm="res4", seed=MORE_SEEDS[0])
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


def _method(results: Results, machines: Mapping[str, Mapping[str, str]]) -> str:
    hours = sum(outcome.seconds for outcome in results.values()) / 3600
    cfg = load_config(CONFIG)
    return f"""\
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
- Among rings a detector starts from the one of its arm and seed that was trained without them, \
and is trained as long again at half the rate. Pilots with a block so had an AP of 72 (at the \
whole rate), 88 (the same) and 82; one that met rings from the start had 50 after 600 iterations, \
no more than a guess, as most seeds had in the pilots before.
- Seeds {MORE_SEEDS[0]} to {MORE_SEEDS[-1]} were added for the near control and for detectors \
that look among rings; the dial, the forms and the places, which had not run then, have them too.
- Some detectors with a block are still learning after {cfg.SOLVER.MAX_ITER} iterations, as the \
spread of their AP shows. Forms, places and the near control were trained for twice as long with \
seeds {LATEST_SEEDS[0]} to {LATEST_SEEDS[-1]}, after a pilot of concatenation (seed 101: AP 65.6 \
after 300 iterations, 94.9 after 600); these are judged by AP50, as the question is the class. An \
AP50 near 50 in the table is a detector that has not learned the match by then.
- Seeds {EXTRA_SEEDS[0]} to {EXTRA_SEEDS[-1]} were added to what those had left undecided: the \
near control, forms but the dot product, and places.
- What did not make it learn: an FPN between res4 and the classifier; a class that is matched or \
not, without the colour. In neither is the block shown to help.
- {len(results)} trials, {hours:.1f} hours of one processor's time for training.
{machine_lines(machines, "boxes")}"""
