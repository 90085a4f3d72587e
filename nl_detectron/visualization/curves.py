"""Curves of one or several runs over each other, from Detectron2's ``metrics.json``."""

import fnmatch
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..utils.errors import UserError, nearest

DEFAULT_KEYS = ("total_loss", "loss_*", "*/AP", "*/AP50", "nonlocal/*")

_COLUMNS = 4
_LINE_STYLES = ("-", "--", ":", "-.")


@dataclass
class Run:
    """A run's name and curves: for each key the iterations and values, in that order."""

    name: str
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    damaged_lines: int = 0


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read runs from folders or ``metrics.json`` files; names are the folders below a common one.

    Lines that are no JSON (a killed run leaves half of one) are counted and skipped. A run that
    resumed at an earlier iteration has some iterations twice; the later lines count.

    Raises:
        UserError: a file is missing, or no line of it can be read.
    """
    files = [path / "metrics.json" if path.is_dir() else path for path in map(Path, paths)]
    folders = [file.resolve().parent for file in files]
    common = os.path.commonpath([folder.parent for folder in folders])
    runs = []
    for file, folder in zip(files, folders, strict=True):
        run = Run(folder.relative_to(common).as_posix())
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise UserError(
                f"cannot read {file} ({error.strerror}); expected a run's folder or metrics.json"
            ) from error
        for line in lines:
            try:
                record = json.loads(line)
                iteration = record.get("iteration")
            except (ValueError, AttributeError):
                run.damaged_lines += 1
                continue
            if iteration is not None:  # an evaluation alone may have none
                _add(run, record, int(iteration))
        if not run.curves:
            raise UserError(f"expected metrics.json of a run, got {file} without any iteration")
        runs.append(run)
    return runs


def _add(run: Run, record: dict, iteration: int) -> None:
    for key, value in record.items():
        if key == "iteration" or not isinstance(value, int | float):
            continue
        curve = run.curves.setdefault(key, {})
        # A run that went back replaces its later points; each curve has its own iterations.
        while curve and next(reversed(curve)) >= iteration:
            curve.popitem()
        curve[iteration] = float(value)


def plot_runs(
    runs: Sequence[Run], *, keys: Sequence[str] = DEFAULT_KEYS, smooth: int = 1
) -> Figure:
    """Draw a panel for each key that matches one of the patterns `keys`, a line for each run.

    Axes of quantities that are never negative start at zero. With `smooth` above 1, a line is the
    mean of the last `smooth` points, over the points themselves in a lighter tone. Evaluations are
    never smoothed.

    Raises:
        UserError: no run has a finite value for any of `keys`.
    """
    known = {
        key for run in runs for key, c in run.curves.items() if np.isfinite(list(c.values())).any()
    }
    shown = list(dict.fromkeys(k for p in keys for k in sorted(fnmatch.filter(known, p))))
    if not shown:
        raise UserError(f"no run has {' '.join(keys)}.{nearest(keys[0], sorted(known))}")
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows + 0.4 * len(runs) / columns + 0.6))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    last = max(max(c) for run in runs for k, c in run.curves.items() if k in shown)
    for panel, key in zip(panels, shown, strict=False):
        for number, run in enumerate(runs):
            if key in run.curves:
                _draw(panel, key, run, number, smooth)
        panel.set_title(key if len(key) < 40 else key.replace("/", "/\n"), fontsize=9)
        panel.set_xlim(0, max(last, 1))
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_xlabel("iteration", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
        if all(v >= 0 for run in runs for v in run.curves.get(key, {}).values() if v == v):
            panel.set_ylim(bottom=0)
    for panel in panels[len(shown) :]:
        panel.remove()
    handles = [Line2D([], [], label=run.name, **_style(n)) for n, run in enumerate(runs)]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9)
    if smooth > 1:
        figure.suptitle(f"mean of the last {smooth} points; light: as logged", fontsize=9)
    return figure


def _draw(panel, key: str, run: Run, number: int, smooth: int) -> None:
    iterations, values = list(run.curves[key]), np.array(list(run.curves[key].values()))
    # The last point lies on the frame, which must not crop it.
    style = _style(number) | {"clip_on": False, "zorder": 3}
    evaluated = "/AP" in key
    if smooth > 1 and not evaluated:
        panel.plot(iterations, values, alpha=0.3, label="_as logged", **style)
        values = np.array(
            [values[max(0, i - smooth) : i].mean() for i in range(1, len(values) + 1)]
        )
    # A single point makes no line, and evaluations are few, so both get a mark.
    marker = "o" if evaluated or len(values) == 1 else None
    panel.plot(iterations, values, label=run.name, marker=marker, markersize=3, **style)


def _style(number: int) -> dict:
    line = _LINE_STYLES[number // 10 % len(_LINE_STYLES)]
    return {"color": f"C{number % 10}", "linestyle": line, "linewidth": 1.3}
