"""The paper's tables that can be reproduced: their rows, and how figures are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nl_detectron.errors import UserError, nearest
from nl_detectron.model_zoo import ENTRIES, Entry
from nl_detectron.model_zoo.entries import TABLE_5, TABLE_6


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper.

    Attributes:
        number: in the paper.
        section: of the model zoo, whose entries are the rows.
        run_tolerance: what two runs of one config may differ by, in per cent.
        difference_tolerance: what the differences of two such runs may differ by.
        notes: how to read the report, in Markdown.
    """

    number: int
    section: str
    run_tolerance: float
    difference_tolerance: float
    notes: str

    @property
    def rows(self) -> list[Entry]:
        return [entry for entry in ENTRIES if entry.section == self.section]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the figures, which are the same for all metrics of a table."""
        (columns,) = {metric.columns for entry in self.rows for metric in entry.metrics}
        return columns


# Kaiming He (facebookresearch/moco, issue 39): 0.3 AP between two runs of one config is a
# reasonable range of random variation on COCO. A difference of two runs varies by the root of 2 as
# much.
_RUN, _DIFFERENCE = 0.3, 0.4
_COCO_NOTES = f"""\
AP / AP50 / AP75 in per cent. *NL - baseline* is the difference to the baseline row, trained under
the same schedule; it is what the paper claims, and no recipe is known with which its absolute
figures for R50, R101 and keypoints would have to come out.

*Within tolerance* is about AP. A row with blocks: the measured difference is within
{_DIFFERENCE} of the paper's. A baseline: it is within {_RUN} of Detectron2's
model of the same recipe. Two runs of one config on COCO may well differ by {_RUN}, and
differences of two such runs by the root of 2 as much; one run is no proof in either direction. A
dash: there is nothing to compare with.
"""


def _coco_table(number: int, section: str) -> Table:
    return Table(
        number=number,
        section=section,
        run_tolerance=_RUN,
        difference_tolerance=_DIFFERENCE,
        notes=_COCO_NOTES,
    )


TABLES = {5: _coco_table(5, TABLE_5), 6: _coco_table(6, TABLE_6)}


def table_of(entry: Entry) -> Table:
    """Return the table that has `entry` as a row."""
    return next(table for table in TABLES.values() if table.section == entry.section)


def select(table: int, names: Sequence[str] = ()) -> list[Entry]:
    """Return rows of a table in its order; without names, those that the paper has figures for.

    Args:
        table: its number, a key of TABLES.
        names: short names (``Entry.row_name``) or names of configs, in any case of letters.

    Raises:
        UserError: for a name that the table does not have, with the nearest ones.
    """
    entries = TABLES[table].rows
    if not names:
        return [entry for entry in entries if entry.paper]
    known = {}
    for entry in entries:
        path = Path(entry.config)
        for name in (entry.row_name, entry.config, path.name, path.stem):
            known[name.lower()] = entry.config
    wanted = set()
    for name in names:
        if name.lower() not in known:
            rows = [entry.row_name for entry in entries]
            guess = nearest(name.upper(), rows)
            raise UserError(f"Table {table} has no row '{name}'.{guess} It has {', '.join(rows)}")
        wanted.add(known[name.lower()])
    return [entry for entry in entries if entry.config in wanted]
