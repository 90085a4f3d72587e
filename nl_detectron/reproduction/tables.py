"""The paper's tables that can be reproduced: their rows, and how figures are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nl_detectron.errors import UserError, nearest
from nl_detectron.model_zoo import Entry
from nl_detectron.model_zoo import video_entries as video
from nl_detectron.model_zoo.entries import TABLE_5, TABLE_6
from nl_detectron.model_zoo.tables import rows_of


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper.

    Attributes:
        title: of the report.
        sections: of the model zoo, whose entries are the rows.
        reference: whose figures stand beside the paper's: ``detectron2`` or ``official``, as
            `Entry` names them. A measured baseline is compared with them.
        paper_recipe: the paper says how its networks were trained, so that where there are no
            figures of `reference`, a measured baseline is compared with the paper's.
        run_tolerance: what two runs of one config may differ by, in per cent; None if nobody knows.
        difference_tolerance: what the differences of two such runs may differ by.
        notes: how to read the report, in Markdown.
    """

    title: str
    sections: tuple[str, ...]
    reference: str
    paper_recipe: bool
    run_tolerance: float | None
    difference_tolerance: float | None
    notes: str

    @property
    def rows(self) -> list[Entry]:
        entries = [entry for section in self.sections for entry in rows_of(section)]
        return list({entry.config: entry for entry in entries}.values())

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


# Networks of Table 2 were trained twice by this recipe, for the paper and for the official code's
# README: top-1 differs by 0.0 to 0.3. A difference of two runs varies by the root of 2 as much.
_KINETICS_RUN, _KINETICS_DIFFERENCE = 0.3, 0.4
_KINETICS_NOTES = f"""\
Top-1 / top-5 accuracy in per cent on the validation videos, all views of a video together.
*NL - baseline* is the difference to the network without blocks, trained under the same schedule.

*Within tolerance* is about top-1. A row with blocks: the measured difference is within
{_KINETICS_DIFFERENCE} of the paper's. A baseline: it is within {_KINETICS_RUN} of the official
code's figure, or of the paper's where there is none. The paper's figures and those of the official
code, which are two runs of the same recipes, differ by up to {_KINETICS_RUN}; one run is no proof
in either direction. Videos vanish from Kinetics, so a copy that is downloaded today is smaller than
the paper's. A dash: there is nothing to compare with.
"""
_CHARADES_NOTES = """\
Mean average precision in per cent, trained on the official train videos, evaluated on the others.
*NL - baseline* is the difference to the network without blocks, trained under the same schedule. As
in the paper, each starts from its own Kinetics network of 128 frames.

Nothing is known about how much two runs differ, so nothing is judged. The paper does not say how it
pools over a video's clips; here it is the maximum.
"""


def _coco_table(section: str) -> Table:
    return Table(
        title=section,
        sections=(section,),
        reference="detectron2",
        paper_recipe=False,
        run_tolerance=_RUN,
        difference_tolerance=_DIFFERENCE,
        notes=_COCO_NOTES,
    )


def _kinetics_table(*sections: str, title: str = "") -> Table:
    return Table(
        title=title or sections[0],
        sections=sections,
        reference="official",
        paper_recipe=True,
        run_tolerance=_KINETICS_RUN,
        difference_tolerance=_KINETICS_DIFFERENCE,
        notes=_KINETICS_NOTES,
    )


_PARTS_OF_2 = {
    "2a": video.TABLE_2A,
    "2b": video.TABLE_2B,
    "2c": video.TABLE_2C,
    "2d": video.TABLE_2D,
    "2e": video.TABLE_2E,
    "2f": video.TABLE_2F,
    "2g": video.TABLE_2G,
}
TABLES = {
    "2": _kinetics_table(*_PARTS_OF_2.values(), title="Table 2: Kinetics"),
    **{number: _kinetics_table(section) for number, section in _PARTS_OF_2.items()},
    "3": _kinetics_table(video.TABLE_3),
    "4": Table(
        title=video.TABLE_4,
        sections=(video.TABLE_4,),
        reference="official",
        paper_recipe=True,
        run_tolerance=None,
        difference_tolerance=None,
        notes=_CHARADES_NOTES,
    ),
    "5": _coco_table(TABLE_5),
    "6": _coco_table(TABLE_6),
}
"""By number; 2 is all its parts."""


def select(table: str, names: Sequence[str] = ()) -> list[Entry]:
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
    return find_rows(entries, names, of=f"Table {table}")


def find_rows(entries: Sequence[Entry], names: Sequence[str], *, of: str) -> list[Entry]:
    """Return the entries that are named, in their order.

    Raises:
        UserError: see `select`; `of` is what has these entries, in words.
    """
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
            raise UserError(f"{of} has no row '{name}'.{guess} It has {', '.join(rows)}")
        wanted.add(known[name.lower()])
    return [entry for entry in entries if entry.config in wanted]
