"""Undocumented parts of Detectron2 and fvcore that this package uses.

A version that changes it fails here, by name; documented names fail where they are imported.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.engine import DefaultTrainer, SimpleTrainer
from fvcore.common.checkpoint import _IncompatibleKeys

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.engine import StepTrainer, Trainer

ROOT = Path(__file__).resolve().parent.parent
THEIRS = ("detectron2", "fvcore", "iopath", "yacs")

PRIVATE_IMPORTS = {
    "fvcore.common.checkpoint._IncompatibleKeys",
    "fvcore.common.checkpoint._filter_reused_missing_keys",
}
# Methods of theirs that our subclasses replace, which they must go on calling, and with this.
REPLACED = {
    DefaultTrainer: {
        "build_evaluator": "cfg dataset_name",
        "build_hooks": "self",
        "build_lr_scheduler": "cfg optimizer",
        "build_model": "cfg",
        "build_optimizer": "cfg model",
        "build_test_loader": "cfg dataset_name",
        "build_train_loader": "cfg",
        "build_writers": "self",
        "resume_or_load": "self resume",
        "test": "cfg model evaluators",
        "train": "self",
    },
    SimpleTrainer: {
        "load_state_dict": "self state_dict",
        "run_step": "self",
        "state_dict": "self",
    },
    Checkpointer.__mro__[1]: {  # Detectron2's
        "_load_file": "self filename",
        "_torch_load": "self f",
        "load": "self path args kwargs",
    },
    Checkpointer.__mro__[2]: {  # fvcore's
        "_log_incompatible_keys": "self incompatible",
        "save": "self name kwargs",
    },
}


def imported() -> Iterator[tuple[str, str]]:
    """Yield module and name of all that our code imports from Detectron2 and its libraries."""
    places = [ROOT / "train_net.py"]
    for folder in ("nl_detectron", "tools", "demo"):
        places += (ROOT / folder).rglob("*.py")
    for path in places:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in THEIRS:
                yield from ((str(node.module), name.name) for name in node.names)


def parameters(function: Any) -> list[str]:
    # Detectron2's `configurable` takes a config in the place of the arguments below it.
    return list(inspect.signature(function).parameters)


def test_the_private_names_are_listed() -> None:
    private = {f"{module}.{name}" for module, name in imported() if name.startswith("_")}
    assert private == PRIVATE_IMPORTS


@pytest.mark.parametrize(
    ("theirs", "name"), [(theirs, name) for theirs in REPLACED for name in REPLACED[theirs]]
)
def test_what_we_replace_is_still_called_so(theirs: type, name: str) -> None:
    expected = REPLACED[theirs][name].split()
    function = vars(theirs)[name]
    assert [
        p for p in parameters(getattr(function, "__func__", function)) if p != "cls"
    ] == expected
    ours = {DefaultTrainer: Trainer, SimpleTrainer: StepTrainer}.get(theirs, Checkpointer)
    assert getattr(ours, name) is not getattr(theirs, name)


def test_the_attributes_of_theirs_that_we_read() -> None:
    source = inspect.getsource
    assert isinstance(SimpleTrainer._data_loader_iter, property)
    assert "self._data_loader_iter_obj" in source(SimpleTrainer._data_loader_iter.fget)
    assert "self._trainer" in source(DefaultTrainer.run_step)
    assert "_parsed_url_during_load" in source(Checkpointer.__mro__[1].load)
    assert "self._torch_load" in source(Checkpointer.__mro__[1]._load_file)
    assert "self._load_file" in source(Checkpointer.__mro__[2].load)
    assert "self._log_incompatible_keys" in source(Checkpointer.__mro__[2].load)
    assert {"incorrect_shapes", "missing_keys", "unexpected_keys"} <= set(_IncompatibleKeys._fields)
