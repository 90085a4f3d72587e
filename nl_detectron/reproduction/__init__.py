"""The paper's tables: which rows there are, their training, and what came out of it."""

from .plan import Machines, Recipe, Row, Run, plan, with_starts
from .released import plan_released, released_csv, released_markdown, select_released
from .report import as_csv, as_markdown, save_measured
from .run import check_folders, collect, run_all
from .state import State, read_evaluation, read_state
from .tables import TABLES, Table, select

__all__ = [
    "TABLES",
    "Machines",
    "Recipe",
    "Row",
    "Run",
    "State",
    "Table",
    "as_csv",
    "as_markdown",
    "check_folders",
    "collect",
    "plan",
    "plan_released",
    "read_evaluation",
    "read_state",
    "released_csv",
    "released_markdown",
    "run_all",
    "save_measured",
    "select",
    "select_released",
    "with_starts",
]
