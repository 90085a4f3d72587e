"""The appendix of ``docs/experiments.md``: the former tasks of boxes and keypoints."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nl_detectron.data.relational import HEIGHT, NUM_TRAIN, NUM_VAL, WIDTH

from .hypotheses import HYPOTHESES, Group, Hypothesis
from .plan import FAR, LABELS, SETTINGS, Trial, plan
from .plots import plot_distance, plot_examples, plot_iteration
from .results import Results, values
from .run import machine_lines
from .statistics import Interval, difference, mean, spread
from .tables import markdown


def appendix(results: Results, folder: Path, at: Path, machines: dict[str, dict[str, str]]) -> str:
    """Return the page's appendix; its images go into `folder`, which the page calls `at`."""
    figures = {
        "examples.jpg": plot_examples(),
        "ap_by_distance.png": plot_distance(results),
        "ap_by_iteration.png": plot_iteration(results),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
    settings = [name for name in SETTINGS if any(t.setting == name for t in results)]
    examples, distance, iteration = (f"{at}/{name}" for name in figures)
    parts = [_head(results), _tasks(examples), _answers(results)]
    parts += [_tables(results, setting) for setting in settings]
    parts += [_plots(distance, iteration), _use(results), _method(results, machines)]
    return "\n\n".join(parts)


def answer(hypothesis: Hypothesis, found: Interval) -> str:
    """Say whether the interval of the difference is what was expected."""
    told_apart = 0 not in found
    if hypothesis.expected == "same":
        return "no" if told_apart else "not contradicted"
    if not told_apart:
        return "not shown"
    as_expected = (found.estimate > 0) == (hypothesis.expected == "more")
    return "yes" if as_expected else "no, the opposite"


def _difference(results: Results, hypothesis: Hypothesis) -> Interval | None:
    first, second = values(results, hypothesis.first), values(results, hypothesis.second)
    return difference(first, second) if min(len(first), len(second)) > 1 else None


def _head(results: Results) -> str:
    def found(number: int) -> str:
        hypothesis = HYPOTHESES[number]
        interval = _difference(results, hypothesis)
        if interval is None:
            return "not measured"
        first, second = (values(results, g) for g in (hypothesis.first, hypothesis.second))
        return (
            f"AP {mean(first).estimate:.1f} against {mean(second).estimate:.1f}, a difference of "
            f"{interval} ({len(first)} and {len(second)} seeds)"
        )

    by_claim = {(h.first, h.second): n for n, h in enumerate(HYPOTHESES)}

    def compared(task: str, first: str, second: str, distance: int) -> str:
        groups = [Group(task=task, distance=distance, arm=arm) for arm in (first, second)]
        return found(by_claim[groups[0], groups[1]])

    return f"""## Appendix: the former tasks, on panoramas

These tasks of boxes and keypoints were replaced, because they do not decide: most of their \
intervals hold 0, since some seeds had left the plateau of chance by the last iteration and others \
had not. They ask for a cue far away, one in each panorama: a trial sees 2,000 answers, one on \
clips sees ten times as many. In the keypoint head eight 3x3 convolutions already see most \
of the region, so that reach hardly shows there. The rows stay as they were measured.

**Found.** Where the class of a box depends on a cue {FAR} pixels away, one block in res4 against \
no block: {compared("crates", "res4", "baseline", FAR)}. With the cue at the thing itself: \
{compared("crates", "res4", "baseline", 0)}. Where left and right of a keypoint depend on a cue \
{FAR} pixels away, one block in res4 against none: \
{compared("walkers", "res4", "baseline", FAR)}; four blocks in the head against none: \
{compared("walkers", "head", "baseline", FAR)}. Brackets are 95 % intervals, in points of AP; \
one that holds 0 shows no difference."""


def _tasks(examples: str) -> str:
    return f"""### Panoramas: the two tasks

![panoramas of both tasks, with the cue near and far]({examples})

Every crate is drawn alike: its class is the colour of the gate. A walker's hands, at the right \
end, are drawn alike: whether the upper one is the left or the right hand depends on whether the \
face is bright or the dark back of a head. A model of crates that does not know the class scores \
an AP near 25; a model of walkers that does not know mostly puts both hands in one place and \
scores near 0."""


def _answers(results: Results) -> str:
    lines = [
        "### Panoramas: hypotheses",
        "",
        "Written down before the runs (`experiments/hypotheses.py`, in the history of "
        "this repository). The difference is in AP, with Welch's 95 % interval over seeds; the "
        "intervals are not corrected for their number, so that one in twenty is expected to miss. "
        '"Not contradicted" is no proof of equality: see how wide the interval is.',
        "",
    ]
    rows = []
    for hypothesis in HYPOTHESES:
        found = _difference(results, hypothesis)
        verdict = "-" if found is None else answer(hypothesis, found)
        rows.append([hypothesis.claim, found or "not measured", verdict])
    return "\n".join([*lines, markdown(rows, ["expected", "difference in AP", "borne out"])])


def _tables(results: Results, setting: str) -> str:
    lines = [
        f"### Panoramas: results, {SETTINGS[setting].description}",
        "",
        "AP is COCO's, in per cent, of boxes for crates and of keypoints for walkers; mean and "
        "standard deviation over seeds, and each seed's. Where they spread, some seeds had left "
        "the plateau of chance by the last iteration and others had not. *Found* is the AP50 of "
        "boxes whatever their class: how well things are found at all.",
        "",
    ]
    headers = ["task", "distance", "model", "AP by seed", "AP", "AP50", "found", "parameters"]
    headers += ["multiply-adds", "training"]
    rows = []
    groups = {(t.task, t.distance, t.arm) for t in results if t.setting == setting}
    order = {arm: number for number, arm in enumerate(LABELS)}
    for task, distance, arm in sorted(groups, key=lambda g: (g[0], -g[1], order[g[2]])):
        by_seed = {
            t.seed: outcome
            for t, outcome in results.items()
            if (t.setting, t.task, t.distance, t.arm) == (setting, task, distance, arm)
        }
        outcomes = [by_seed[seed] for seed in sorted(by_seed)]
        cells = [
            task,
            f"{distance}",
            LABELS[arm],
            ", ".join(f"{o.ap:.0f}" for o in outcomes),
            spread([o.ap for o in outcomes]),
            spread([o.ap50 for o in outcomes]),
            f"{mean([o.localization_ap50 for o in outcomes]).estimate:.1f}",
            f"{outcomes[0].parameters / 1e6:.2f} M",
            f"{outcomes[0].multiply_adds / 1e6:,.0f} M",
            f"{mean([o.seconds for o in outcomes]).estimate:.0f} s",
        ]
        rows.append(cells)
    return "\n".join([*lines, markdown(rows, headers, right=(1, *range(3, 10)))])


def _plots(distance: str, iteration: str) -> str:
    return f"""### Panoramas: distance and time

Bands and bars are 95 % intervals of the mean.

![AP against the distance of the cue]({distance})

![AP against iterations]({iteration})"""


def _use(results: Results) -> str:
    lines = [
        "### Panoramas: are the blocks used?",
        "",
        "*Residual ratio*: ||z - x|| / ||x|| at the end of training; 0 is the identity. *On the "
        "cue*: share of the attention, looking from the crate's centre or from a hand, that lands "
        "on windows that the cue overlaps (of the absolute weight for forms without softmax, "
        "whose weights may be negative); *even*: what it would be if all windows got the same. "
        f"Means over seeds and the {NUM_VAL} images of the validation set.",
        "",
    ]
    headers = ["task", "distance", "model", "block", "residual ratio", "on the cue", "even"]
    headers += ["times even"]
    rows = []
    uses: dict[tuple, list] = {}
    order = list(LABELS)
    for t, outcome in results.items():
        for use in outcome.blocks:
            key = (t.setting, t.task, -t.distance, order.index(t.arm), use.block)
            uses.setdefault(key, []).append(use)
    for (_, task, distance, arm, block), found in sorted(uses.items()):
        ratio = mean([u.residual_ratio for u in found]).estimate
        share, even = (
            mean([getattr(u, name) for u in found]).estimate for name in ("cue_share", "even_share")
        )
        short = block.removeprefix("backbone.bottom_up.").removeprefix("roi_heads.")
        cells = [task, f"{-distance}", LABELS[order[arm]], f"`{short}`", f"{ratio:.3g}"]
        shares = [f"{100 * share:.1f} %", f"{100 * even:.1f} %", f"{share / even:.2f}"]
        rows.append([*cells, *shares])
    return "\n".join([*lines, markdown(rows, headers, right=(1, *range(4, 8)))])


def _method(results: Results, machines: dict[str, dict[str, str]]) -> str:
    missing = [t for t in plan("cpu") if t not in results]
    hours = sum(outcome.seconds for outcome in results.values()) / 3600
    absent = (
        f"- {len(missing)} of the plan's trials are missing: {_listed(missing)}."
        if missing
        else "- Every trial of the plan has been run."
    )
    unmeasured = (
        "" if any(t.setting == "gpu" for t in results) else "\n- Unmeasured: the setting `gpu`."
    )
    return f"""### Panoramas: how it was measured

- Data: `nl_relational` (`nl_detectron/data/relational.py` says why it favours no model), \
{NUM_TRAIN} panoramas of {HEIGHT} x {WIDTH} pixels to train and {NUM_VAL} to validate for each \
task and distance. An observer that finds everything and reads the cue scores AP 100; one \
that guesses, 25 to 30 (a test).
- Models and schedule: `configs/experiments`; all arms of a task have the same but for the keys in \
`experiments/plan.py`. Models of crates start from random weights; those of walkers \
from the weights of the same backbone and seed, trained on crates {FAR} pixels from their cue. \
Seeds are Detectron2's `SEED`: weights and order of the data.
- The learning rate, the size of the cue and the norm of the blocks were chosen in about fifteen \
pilot runs of seed 1, until one block learned the far task and the baseline the near one; \
the models without blocks were not tuned apart. Walkers took some twenty-five pilots more. From \
random weights, blocks in the head learned left from right far away in none of them (rates of 0.03 \
to 0.1, up to 1000 iterations), one in res4 with one seed of three; from the weights of crates the \
first pilot with both did.
- {len(results)} trials, {hours:.1f} hours of training on one thread each, two at a time beside \
other work, evaluations not counted.
{machine_lines(machines, "panoramas")}
- A trial that is run again on the same machine gives the same figures to the last digit, all but \
its seconds: shown for `cpu/crates_d384/dot_product/seed1` and for `cpu/walkers_d384/res4/seed2` \
with the model that it starts from. Another processor may round otherwise.
{absent}{unmeasured}"""


def _listed(trials: Iterable[Trial]) -> str:
    counts = Counter(f"{t.task} at {t.distance}, {LABELS[t.arm]}" for t in trials)
    return "; ".join(f"{what} ({number} seeds)" for what, number in counts.items())
