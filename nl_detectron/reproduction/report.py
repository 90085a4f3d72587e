"""The paper's figures beside the measured ones, as Markdown and as CSV."""

import csv
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from nl_detectron.errors import UserError
from nl_detectron.model_zoo import METRICS, Entry, Metric, find_entry
from nl_detectron.model_zoo.entry import Figures

from .run import State
from .tables import table_of

_HEADERS = [
    "row",
    "blocks",
    "schedule",
    "metric",
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
        states: what there is of them and of their baselines; see `collect`.
        failed: by config, why a row failed.
    """
    rows = []
    for entry, metric in _lines(entries):
        paper, measured = _figures(entry, metric), _figures(entry, metric, states)
        own, theirs = measured[0], entry.detectron2.get(metric.name)
        within = _within(entry, metric, states)
        state = states[entry.config]
        rows.append(
            [
                entry.row_name,
                entry.blocks or "none",
                entry.schedule,
                metric.title,
                _written(paper[0]),
                _written(theirs),
                _written(own),
                _written(paper[1], sign="+"),
                _written(measured[1], sign="+"),
                "–" if within is None else "yes" if within else "no",
                "failed" if entry.config in failed else str(state),
            ]
        )
    table = tabulate(rows, _HEADERS, tablefmt="github", disable_numparse=True)
    parts = [f"# {entries[0].section}", f"{table}\n", table_of(entries[0]).notes]
    if failed:
        parts.append("".join(f"- {_entry(c).row_name}: {error}\n" for c, error in failed.items()))
    changed = [
        f"- {_entry(config).row_name}: `{shlex.join(state.opts)}`\n"
        for config, state in states.items()
        if state.opts
    ]
    if changed:
        parts.append("Not the recipes of the configs; options were given:\n\n" + "".join(changed))
    return "\n".join(parts)


def as_csv(entries: Sequence[Entry], states: States, failed: Mapping[str, str]) -> str:
    """Return one line per row and metric; arguments as for `as_markdown`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = ["paper", "detectron2", "measured", "paper_difference", "measured_difference"]
    columns = table_of(entries[0]).columns
    names = [f"{kind}_{column}" for kind in kinds for column in columns]
    writer.writerow(["config", "row", "metric", *names, "within_tolerance", "state"])
    for entry, metric in _lines(entries):
        paper, measured = _figures(entry, metric), _figures(entry, metric, states)
        theirs = entry.detectron2.get(metric.name)
        figures = [paper[0], theirs, measured[0], paper[1], measured[1]]
        values = [
            "" if value is None else round(value, 4)
            for one in figures
            for value in (one or (None,) * len(columns))
        ]
        within = _within(entry, metric, states)
        verdict = "" if within is None else "yes" if within else "no"
        state = "failed" if entry.config in failed else str(states[entry.config])
        writer.writerow([entry.config, entry.row_name, metric.name, *values, verdict, state])
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
                f"{_entry(config).row_name} was trained with {options}; the zoo's tables take "
                "results of the configs as they are, started by this tool"
            )
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        rows = {row["config"]: row for row in reader}
    for config, state in finished.items():
        row = {"config": config}
        for metric in METRICS:
            figures = (state.results or {}).get(metric.name) or (None,) * len(metric.columns)
            for column, value in zip(metric.columns, figures, strict=True):
                row[f"{metric.name}_{column}"] = "" if value is None else f"{value:.2f}"
        rows[config] = row
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error
    return len(finished)


def _lines(entries: Sequence[Entry]) -> list[tuple[Entry, Metric]]:
    return [(entry, metric) for entry in entries for metric in entry.metrics]


def _entry(config: str) -> Entry:
    entry = find_entry(config)
    if entry is None:
        raise ValueError(f"the zoo has no {config}")
    return entry


def _figures(
    entry: Entry, metric: Metric, states: States | None = None
) -> tuple[Figures | None, Figures | None]:
    """Return the paper's figures, or those of `states`, and the differences to the baseline's."""

    def figures(config: str) -> Figures | None:
        if states is None:
            return _entry(config).paper.get(metric.name)
        return (states.get(config, State()).results or {}).get(metric.name)

    own = figures(entry.config)
    base = figures(entry.baseline) if entry.baseline else None
    return own, _minus(own, base)


def _minus(a: Figures | None, b: Figures | None) -> Figures | None:
    if a is None or b is None:
        return None
    return tuple(None if x is None or y is None else x - y for x, y in zip(a, b, strict=True))


def _within(entry: Entry, metric: Metric, states: States) -> bool | None:
    """None where there is nothing to compare, NaN included."""
    measured, difference = _figures(entry, metric, states)
    if entry.baseline:
        expected, actual = _figures(entry, metric)[1], difference
    else:
        expected, actual = entry.detectron2.get(metric.name), measured
    if not expected or not actual or expected[0] is None or actual[0] is None:
        return None
    if math.isnan(actual[0]):
        return None
    table = table_of(entry)
    tolerance = table.difference_tolerance if entry.baseline else table.run_tolerance
    return abs(actual[0] - expected[0]) <= tolerance + 1e-6  # figures have one decimal


def _written(figures: Figures | None, sign: str = "") -> str:
    if figures is None:
        return "–"
    return " / ".join(f"{value:{sign}.1f}" for value in figures if value is not None)
