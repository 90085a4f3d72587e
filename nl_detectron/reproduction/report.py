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
from nl_detectron.model_zoo.tables import SOURCES

from .state import State
from .tables import Table

States = Mapping[str, State]
"""By config."""


def as_markdown(
    table: Table, entries: Sequence[Entry], states: States, failed: Mapping[str, str]
) -> str:
    """Return a table with its legend.

    Args:
        table: of the paper.
        entries: the rows of it that were asked for.
        states: what there is of them and of their baselines; see `collect`.
        failed: by config, why a run failed.
    """
    rows = []
    for entry, metric in _lines(entries):
        paper, measured = _figures(entry, metric), _figures(entry, metric, states)
        within = _within(table, entry, metric, states)
        rows.append(
            {
                "row": entry.row_name,
                "blocks": entry.blocks or "none",
                "schedule": entry.schedule,
                "metric": metric.title,
                "paper": written(paper[0]),
                SOURCES[table.reference]: written(_theirs(table, entry, metric)),
                "measured": written(measured[0]),
                "NL - baseline, paper": written(paper[1], sign="+"),
                "NL - baseline, measured": written(measured[1], sign="+"),
                "within tolerance": "–" if within is None else "yes" if within else "no",
                "state": "failed" if entry.config in failed else str(states[entry.config]),
            }
        )
    text = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    parts = [f"# {table.title}", f"{text}\n", table.notes]
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


def as_csv(
    table: Table, entries: Sequence[Entry], states: States, failed: Mapping[str, str]
) -> str:
    """Return one line per row and metric; arguments as for `as_markdown`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = ["paper", table.reference, "measured", "paper_difference", "measured_difference"]
    names = [f"{kind}_{column}" for kind in kinds for column in table.columns]
    writer.writerow(["config", "row", "metric", *names, "within_tolerance", "state"])
    for entry, metric in _lines(entries):
        paper, measured = _figures(entry, metric), _figures(entry, metric, states)
        theirs = _theirs(table, entry, metric)
        figures = [paper[0], theirs, measured[0], paper[1], measured[1]]
        values = [
            "" if value is None else round(value, 4)
            for one in figures
            for value in (one or (None,) * len(table.columns))
        ]
        within = _within(table, entry, metric, states)
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
    return own, minus(own, base)


def _theirs(table: Table, entry: Entry, metric: Metric) -> Figures | None:
    figures: Figures | None = getattr(entry, table.reference).get(metric.name)
    return figures


def minus(a: Figures | None, b: Figures | None) -> Figures | None:
    """Return the differences, None where a figure is missing."""
    if a is None or b is None:
        return None
    return tuple(None if x is None or y is None else x - y for x, y in zip(a, b, strict=True))


def _within(table: Table, entry: Entry, metric: Metric, states: States) -> bool | None:
    """None where there is nothing to compare, NaN included."""
    measured, difference = _figures(entry, metric, states)
    paper, papers_difference = _figures(entry, metric)
    if entry.baseline:
        expected, actual = papers_difference, difference
        tolerance = table.difference_tolerance
    else:
        expected = _theirs(table, entry, metric) or (paper if table.paper_recipe else None)
        actual, tolerance = measured, table.run_tolerance
    if tolerance is None or not expected or not actual or expected[0] is None or actual[0] is None:
        return None
    if math.isnan(actual[0]):
        return None
    return abs(actual[0] - expected[0]) <= tolerance + 1e-6  # figures have one decimal


def written(figures: Figures | None, sign: str = "") -> str:
    """Return figures as the tables show them."""
    if figures is None:
        return "–"
    return " / ".join(f"{value:{sign}.1f}" for value in figures if value is not None)
