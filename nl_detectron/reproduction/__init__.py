"""The paper's tables: which rows there are, their training, and what came out of it."""

from .plan import Machines, Recipe, Row, plan
from .report import as_csv, as_markdown, save_measured
from .run import State, check_folders, collect, read_state, train
from .tables import TABLES, Table, select

__all__ = [
    "TABLES",
    "Machines",
    "Recipe",
    "Row",
    "State",
    "Table",
    "as_csv",
    "as_markdown",
    "check_folders",
    "collect",
    "plan",
    "read_state",
    "save_measured",
    "select",
    "train",
]
