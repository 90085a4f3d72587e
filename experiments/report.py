"""``docs/experiments.md``: a template, the claims, and the results that answer them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from tabulate import tabulate

from .plots import NAMES, pictures
from .results import Results, load
from .run import PLANS
from .statistics import NOT_RUN, difference, judge
from .video import CORE, KINDS

HERE = Path(__file__).parent
MARGINS = {"video": 5.0, "boxes": 3.0, "keypoints": 5.0}
"""Differences in points that count as none."""


def write_page(folder: Path, page: Path) -> None:
    """Write `page` from the results in `folder`, and its pictures and claims into `folder`."""
    results = {name: load(folder, name) for name in PLANS}
    judged(results).to_csv(folder / "claims.csv", index=False)
    for name, figure in pictures(results):
        figure.savefig(folder / f"{name}.png", dpi=110)
    page.write_text(page_text(results, folder.name), encoding="utf-8")


def page_text(results: Mapping[str, Results], folder: str) -> str:
    """Return the page, whose pictures are in `folder` next to it."""
    shown = ["claim", "with", "against", "seeds", "difference", "found"]
    tables = {
        table: _table(shown, rows[shown].values.tolist())
        for table, rows in judged(results).groupby("table")
    }
    clips = results["video"]
    seconds = [
        second
        for name, plan in PLANS.items()
        for trial in plan.trials()
        for second in results[name].values("seconds", **trial.key)
    ]
    return Template((HERE / "page.md").read_text(encoding="utf-8")).substitute(
        tables,
        folder=folder,
        accuracy=accuracy_table(clips),
        multiply_adds=_increase(clips, "multiply_adds"),
        parameters=_increase(clips, "parameters"),
        trials=len(seconds),
        hours=f"{sum(seconds) / 3600:.1f}",
    )


def judged(results: Mapping[str, Results]) -> pd.DataFrame:
    """Return ``claims.csv`` with the means, seeds and difference of each, and the verdict."""
    claims = pd.read_csv(HERE / "claims.csv", dtype={"distance": "Int64"})
    rows = []
    for claim in claims.itertuples():
        place = {"kind": claim.task}
        if claim.experiment != "video":
            place = {"task": claim.task, "distance": claim.distance}
        first, second = (
            results[claim.experiment].values(claim.measure, arm=arm, **place)
            for arm in (claim.first, claim.second)
        )
        found = difference(first, second)
        rows.append(
            {
                "with": _mean(first),
                "against": _mean(second),
                "seeds": f"{len(first)}, {len(second)}",
                "difference": found or NOT_RUN,
                "found": judge(found, expected=claim.expected, margin=MARGINS[claim.experiment]),
            }
        )
    return claims.join(pd.DataFrame(rows))


def accuracy_table(results: Results) -> str:
    """Return the accuracy of the four networks on each kind of clip."""
    rows = []
    for arm in CORE:
        trained = f"{arm}_batch"
        found = [results.values("accuracy", arm=trained, kind=kind) for kind in KINDS]
        local = results.values("accuracy", arm=arm, kind="control")
        losses = results.values("cross_entropy", arm=trained, kind="all")
        rows.append([NAMES[arm], *map(_mean, [*found, local]), _mean(losses, digits=3)])
    headers = ["network", "in space", "in time", "in both", "local question", "cross-entropy"]
    return _table(headers, rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    sides = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=sides)


def _mean(values: Sequence[float], *, digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f}" if values else NOT_RUN


def _increase(results: Results, column: str) -> str:
    """Return the increase from a block in a C2D, in %."""
    block, none = (results.values(column, arm=a, kind="all") for a in ("spacetime", "none"))
    return f"{100 * (block[0] / none[0] - 1):.0f} %" if block and none else NOT_RUN
