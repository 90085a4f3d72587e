"""Detectors that must match two places: their comparisons, tables and figures, for the page."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from .hypotheses import Group, Hypothesis
from .plan import Trial
from .plots import plot_arms
from .results import Results, values
from .statistics import NOT_RUN, Interval, difference, judge, mean, rule, spread
from .tables import markdown

IMAGES = ("examples", "by_distance", "arms", "attention")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Groups of trials, one at each distance, as a figure shows them."""

    label: str
    color: str
    dashed: bool
    groups: Sequence[Group]


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What the page compares.

    Attributes:
        name: of the experiment, and what AP is of.
        plan: the trials of a setting.
        tasks: what is asked beside the distance, by task, in the tables; of others start those
            that are asked.
        labels: of the arms.
        comparisons: the hypotheses.
        margin: AP, in points, that is no difference.
        cue: what the distance is measured to.
        looks_from: where the blocks are looked at from.
        localization: what `Outcome.localization_ap50` is called, and what it is of.
    """

    name: str
    plan: Callable[[str], Sequence[Trial]]
    tasks: Mapping[str, str]
    labels: Mapping[str, str]
    comparisons: Sequence[Hypothesis]
    margin: float
    cue: str
    looks_from: str
    localization: tuple[str, str]

    def section(
        self,
        results: Results,
        folder: Path,
        at: str,
        *,
        task: str,
        arms: str,
        attention: str,
        method: str,
    ) -> str:
        """Return the page's section; its images are in `folder`, which the page calls `at`.

        Args:
            task: what is drawn, and what is to be found.
            arms: what the image of them shows.
            attention: what the image of it shows.
            method: how it was measured, a list.
        """
        examples, by_distance, by_arm, looked = (f"{self.name}_{image}.png" for image in IMAGES)
        title, (found, found_of) = self.name.capitalize(), self.localization
        return "\n\n".join(
            [
                f"## {title}",
                f"![{self.name}, far and near]({at}/{examples})",
                task,
                f"![AP by distance; dots are seeds]({at}/{by_distance})",
                f"![{arms}; dots are seeds]({at}/{by_arm})",
                *([f"![{attention}]({at}/{looked})"] if (folder / looked).is_file() else []),
                f"### {title}: hypotheses",
                f"Written down before the runs (`experiments/{self.name}/hypotheses.py`). The "
                f"difference is in COCO's AP of {self.name}, in points, with Welch's 95 % interval "
                "over seeds, corrected neither for their number nor for seeds that were added "
                f"after a look at it. {rule(self.margin)} AP also says how exactly {self.name} "
                "are placed, AP50 hardly.",
                self._judged(results),
                f"### {title}: results",
                "AP in per cent, mean and standard deviation over seeds, and each seed's; "
                f"*{found}* is the AP50 of {found_of}. Missing of the plan: "
                f"{self._missing(results)}.",
                self._table(results),
                "What the blocks did: *residual ratio* as above, and the share of the attention on "
                f"the {self.cue}, looking from {self.looks_from}, against an even share.",
                self._uses(results),
                f"### {title}: how it was measured",
                method,
            ]
        )

    def save_images(
        self,
        folder: Path,
        *,
        examples: Figure,
        by_distance: Figure,
        arms: Figure,
        attention: Figure | None,
    ) -> None:
        """Write the section's images into `folder`; of attention if there is one."""
        for image, figure in zip(IMAGES, (examples, by_distance, arms, attention), strict=True):
            if figure is not None:
                figure.savefig(folder / f"{self.name}_{image}.png", dpi=110)

    def versus(
        self, results: Results, first: str, second: str, distance: int, task: str = "match"
    ) -> str:
        """Say what an arm has over another at a distance, in words of the page's first lines."""
        one, other = groups = [
            Group(task=task, distance=distance, arm=arm) for arm in (first, second)
        ]
        found = _interval(results, one, other)
        if found is None:
            return "not measured"
        aps = [mean(values(results, group)).estimate for group in groups]
        return f"AP {aps[0]:.1f} against {aps[1]:.1f}, a difference of {found}"

    def _judged(self, results: Results) -> str:
        """Return the table of hypotheses."""
        rows = []
        for one in self.comparisons:
            found = {m: _interval(results, one.first, one.second, m) for m in _MEASURES}
            said = judge(found[one.measure], expected=one.expected, margin=self.margin)
            where = self._where(one.first.task, one.first.distance)
            differences = [found[m] or NOT_RUN for m in _MEASURES]
            rows.append([one.claim, where, *differences, _MEASURES[one.measure], said])
        headers = ["expected", "distance", *(f"in {name}" for name in _MEASURES.values())]
        headers += ["judged by", "found"]
        return markdown(rows, headers)

    def _table(self, results: Results) -> str:
        """Return the table of results."""
        rows = [
            [
                self._where(task, distance),
                self.labels[arm],
                ", ".join(f"{o.ap:.1f}" for o in outcomes),
                spread([o.ap for o in outcomes]),
                spread([o.ap50 for o in outcomes]),
                f"{mean([o.localization_ap50 for o in outcomes]).estimate:.1f}",
                f"{outcomes[0].parameters / 1e3:.0f} k",
                f"{outcomes[0].multiply_adds / 1e6:.1f} M",
                f"{mean([o.seconds for o in outcomes]).estimate:.0f} s",
            ]
            for (task, distance, arm), outcomes in self._groups(results).items()
        ]
        headers = ["distance", "detector", "AP by seed", "AP", "AP50", self.localization[0]]
        headers += ["parameters", "multiply-adds", "training"]
        return markdown(rows, headers, right=range(2, len(headers)))

    def _uses(self, results: Results) -> str:
        """Return the table of what the blocks did."""
        rows = []
        for (task, distance, arm), outcomes in self._groups(results).items():
            for uses in zip(*(outcome.blocks for outcome in outcomes), strict=True):
                ratio, share, even = (mean([getattr(u, n) for u in uses]).estimate for n in _USE)
                shares = [f"{100 * share:.1f} %", f"{100 * even:.1f} %"]
                by_seed = ", ".join(f"{100 * use.cue_share:.0f}" for use in uses)
                row = [self._where(task, distance), self.labels[arm], f"`{uses[0].block}`"]
                row.append(f"{ratio:.3f}")
                rows.append([*row, *shares, by_seed])
        headers = ["distance", "detector", "block", "residual ratio"]
        headers += [f"on the {self.cue}", "even", "by seed, %"]
        return markdown(rows, headers, right=(3, 4, 5, 6))

    def _missing(self, results: Results, setting: str = "cpu") -> str:
        """Name the trials of the plan that have not been run."""
        counts = Counter(
            (self._where(trial.task, trial.distance), trial.arm)
            for trial in self.plan(setting)
            if trial not in results and trial.task in self.tasks
        )
        listed = (f"{self.labels[arm]} at {at} ({n} seeds)" for (at, arm), n in counts.items())
        return "; ".join(listed) or "nothing"

    def _where(self, task: str, distance: int) -> str:
        """Name a distance and what is asked there, as in "8 pixels, among rings"."""
        if task not in self.tasks:
            return f"{task}, the start"
        return ", ".join(filter(None, (f"{distance} pixels", self.tasks[task])))

    def plot_distance(self, results: Results, lines: Sequence[Line]) -> Figure:
        """Draw AP against the distance of the cue; dots are seeds."""
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        panel = figure.subplots()
        for line in lines:
            found = {group.distance: values(results, group) for group in line.groups}
            found = {distance: aps for distance, aps in found.items() if aps}
            if not found:
                continue
            means = [mean(aps).estimate for aps in found.values()]
            style = "--" if line.dashed else "-"
            panel.plot(
                list(found), means, marker="o", linestyle=style, color=line.color, label=line.label
            )
            for distance, aps in found.items():
                panel.plot([distance] * len(aps), aps, ".", color=line.color, alpha=0.5)
        panel.set_xlabel(f"pixels to the {self.cue}")
        panel.set_ylabel("AP, %")
        panel.set_ylim(0, 102)
        figure.legend(fontsize=8, ncols=2, loc="outside lower center")
        return figure

    def plot_arms(
        self, results: Results, distance: int, arms: Sequence[str], measure: str
    ) -> Figure:
        """Draw arms that were trained on the task without distractors, at a distance."""
        found = {
            self.labels[arm]: values(
                results, Group(task="match", distance=distance, arm=arm), measure=measure
            )
            for arm in arms
        }
        return plot_arms(
            {label: seeds for label, seeds in found.items() if seeds},
            f"{_MEASURES[measure]} with the {self.cue} {distance} pixels away, %",
        )

    def _groups(self, results: Results) -> dict[tuple[str, int, str], list]:
        """The outcomes by task, distance and arm, in the plan's order."""
        groups: dict[tuple[str, int, str], list] = {}
        for trial in self.plan("cpu"):
            if trial in results:
                key = (trial.task, trial.distance, trial.arm)
                groups.setdefault(key, []).append(results[trial])
        return groups


_MEASURES = {"ap": "AP", "ap50": "AP50"}
_USE = ("residual_ratio", "cue_share", "even_share")


def _interval(
    results: Results, first: Group, second: Group, measure: str = "ap"
) -> Interval | None:
    aps = [values(results, group, measure=measure) for group in (first, second)]
    return difference(*aps) if min(map(len, aps)) > 1 else None
