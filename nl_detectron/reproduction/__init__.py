"""The paper's COCO tables: which rows there are, their training, and what came out of it."""

from .plan import Machines, Recipe, Row, plan, row_name, select
from .report import as_csv, as_markdown, save_measured
from .run import State, check_folders, collect, read_state, train

__all__ = [
    "Machines",
    "Recipe",
    "Row",
    "State",
    "as_csv",
    "as_markdown",
    "check_folders",
    "collect",
    "plan",
    "read_state",
    "row_name",
    "save_measured",
    "select",
    "train",
]
