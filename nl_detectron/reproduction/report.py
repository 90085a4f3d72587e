"""The paper's figures beside the measured ones, as Markdown and as CSV."""

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from nl_detectron.errors import UserError
from nl_detectron.model_zoo import AP, Entry, find_entry

from .plan import row_name
from .run import State

# Kaiming He (facebookresearch/moco, issue 39): 0.3 AP between two runs of one config is a
# reasonable range of random variation on COCO.
RUN_TOLERANCE = 0.3
# A difference of two runs varies by the root of 2 as much.
DIFFERENCE_TOLERANCE = 0.4

_NOTES = f"""\
AP / AP50 / AP75 in per cent. *NL - baseline* is the difference to the baseline row, trained under
the same schedule; it is what the paper claims, and no recipe is known with which its absolute
figures for R50, R101 and keypoints would have to come out.

*Within tolerance* is about AP. A row with blocks: the measured difference is within
{DIFFERENCE_TOLERANCE} of the paper's. A baseline: it is within {RUN_TOLERANCE} of Detectron2's
model of the same recipe. Two runs of one config on COCO may well differ by {RUN_TOLERANCE}, and
differences of two such runs by the root of 2 as much; one run is no proof in either direction. A
dash: there is nothing to compare with.
"""

_HEADERS = [
    "row",
    "blocks",
    "schedule",
    "AP of",
    "paper",
    "Detectron2",
    "measured",
    "NL - baseline, paper",
    "NL - baseline, measured",
    "within tolerance",
    "state",
]

States = Mapping[str, State]
"""By config."""


def as_markdown(entries: Sequence[Entry], states: States, failed: Mapping[str, str]) -> str:
    """Return the table with its legend.

    Args:
        entries: its rows.
        states: what there is of them and of their baselines; see :func:`collect`.
        failed: by config, why a row failed.
    """
    rows = [_HEADERS, ["---"] * len(_HEADERS)]
    for entry, metric in _lines(entries):
        paper, measured = _figures(entry, metric), _figures(entry, metric, states)
        ap, theirs = measured[0], getattr(entry.detectron2, metric)
        within = _within(entry, metric, states)
        state = states[entry.config]
        rows.append(
            [
                row_name(entry),
                entry.blocks or "none",
                entry.schedule,
                metric,
                _precision(paper[0]),
                _precision(theirs),
                _precision(ap),
                _precision(paper[1], sign="+"),
                _precision(measured[1], sign="+"),
                "–" if within is None else "yes" if within else "no",
                "failed" if entry.config in failed else str(state),
            ]
        )
    parts = [f"# {entries[0].section}", "".join(f"| {' | '.join(row)} |\n" for row in rows), _NOTES]
    if failed:
        parts.append("".join(f"- {row_name(_entry(c))}: {error}\n" for c, error in failed.items()))
    changed = [
        f"- {row_name(_entry(config))}: `{shlex.join(state.opts)}`\n"
        for config, state in states.items()
        if state.opts
    ]
    if changed:
        parts.append("Not the recipes of the configs; options were given:\n\n" + "".join(changed))
    return "\n".join(parts)


def as_csv(entries: Sequence[Entry], states: States, failed: Mapping[str, str]) -> str:
    """Return one line per row and kind of AP; arguments as for :func:`as_markdown`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = ["paper", "detectron2", "measured", "paper_difference", "measured_difference"]
    names = [f"{kind}_{name}" for kind in kinds for name in ("AP", "AP50", "AP75")]
    writer.writerow(["config", "row", "metric", *names, "within_tolerance", "state"])
    for entry, metric in _lines(entries):
        paper, measured = _figures(entry, metric), _figures(entry, metric, states)
        figures = [paper[0], getattr(entry.detectron2, metric), measured[0], paper[1], measured[1]]
        values = [
            "" if value is None else round(value, 4)
            for ap in figures
            for value in ((ap.ap, ap.ap50, ap.ap75) if ap else (None,) * 3)
        ]
        within = _within(entry, metric, states)
        verdict = "" if within is None else "yes" if within else "no"
        state = "failed" if entry.config in failed else str(states[entry.config])
        writer.writerow([entry.config, row_name(entry), metric, *values, verdict, state])
    return text.getvalue()


def save_measured(path: Path, entries: Sequence[Entry], states: States) -> int:
    """Write the finished rows into the zoo's ``measured.csv`` and return how many they are.

    Raises:
        UserError: for a row whose options are not known to be the config's own, or if the file
            cannot be written.
    """
    of = [entry.config for entry in entries]
    finished = {config: states[config] for config in of if states[config].results}
    for config, state in finished.items():
        if state.opts != ():
            options = "unknown options" if state.opts is None else f"'{' '.join(state.opts)}'"
            raise UserError(
                f"{row_name(_entry(config))} was trained with {options}; the zoo's tables take "
                "results of the configs as they are, started by this tool"
            )
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        rows = {row["config"]: row for row in reader}
    for config, state in finished.items():
        row = {"config": config}
        for metric in ("box", "mask", "keypoint"):
            ap: AP | None = getattr(state.results, metric)
            for name in ("AP", "AP50", "AP75"):
                row[f"{metric}_{name}"] = f"{getattr(ap, name.lower()):.2f}" if ap else ""
        rows[config] = row
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error
    return len(finished)


def _lines(entries: Sequence[Entry]) -> list[tuple[Entry, str]]:
    return [(entry, metric) for entry in entries for metric in ("box", entry.task)]


def _entry(config: str) -> Entry:
    entry = find_entry(config)
    if entry is None:
        raise ValueError(f"the zoo has no {config}")
    return entry


def _figures(
    entry: Entry, metric: str, states: States | None = None
) -> tuple[AP | None, AP | None]:
    """Return the paper's AP, or that of `states`, and its difference to the baseline's."""

    def figure(config: str) -> AP | None:
        if states is None:
            return getattr(_entry(config).paper, metric)
        state = states.get(config, State())
        return getattr(state.results, metric) if state.results else None

    own = figure(entry.config)
    base = figure(entry.baseline) if entry.baseline else None
    return own, _minus(own, base)


def _minus(a: AP | None, b: AP | None) -> AP | None:
    if a is None or b is None:
        return None

    def difference(x: float | None, y: float | None) -> float | None:
        return None if x is None or y is None else x - y

    return AP(a.ap - b.ap, difference(a.ap50, b.ap50), difference(a.ap75, b.ap75))


def _within(entry: Entry, metric: str, states: States) -> bool | None:
    """None where there is nothing to compare, NaN included."""
    measured, difference = _figures(entry, metric, states)
    if entry.baseline:
        expected, actual = _figures(entry, metric)[1], difference
    else:
        expected, actual = getattr(entry.detectron2, metric), measured
    if expected is None or actual is None or actual.ap != actual.ap:
        return None
    tolerance = DIFFERENCE_TOLERANCE if entry.baseline else RUN_TOLERANCE
    return abs(actual.ap - expected.ap) <= tolerance + 1e-6  # figures have one decimal


def _precision(ap: AP | None, sign: str = "") -> str:
    if ap is None:
        return "–"
    values = (ap.ap, ap.ap50, ap.ap75)
    return " / ".join(f"{value:{sign}.1f}" for value in values if value is not None)
