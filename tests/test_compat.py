"""All of Detectron2 and fvcore that is private or has changed between their versions, and that we
use, in one place: a version that changes it fails here, by name.

No version needs handling so far, so the code has no shims; this is where one would be asked for.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import MapDataset, samplers
from detectron2.data.common import ToIterableDataset
from detectron2.engine import DefaultTrainer, SimpleTrainer, default_argument_parser
from detectron2.layers import ShapeSpec

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.engine import StepTrainer, Trainer

ROOT = Path(__file__).resolve().parent.parent
THEIRS = ("detectron2", "fvcore", "iopath", "yacs")

PRIVATE_IMPORTS = {
    "fvcore.common.checkpoint._IncompatibleKeys",
    "fvcore.common.checkpoint._filter_reused_missing_keys",
}
# What we call, with the arguments that we give, in the order of those without a name.
CALLS = {
    "detectron2.config.CfgNode.merge_from_file": "self cfg_filename allow_unsafe",
    "detectron2.config.LazyConfig.apply_overrides": "cfg overrides",
    "detectron2.config.LazyConfig.load": "filename",
    "detectron2.data.DatasetMapper.__init__": "self is_train",
    "detectron2.data.build_detection_test_loader": "dataset mapper",
    "detectron2.data.build_detection_train_loader": "dataset mapper",
    "detectron2.data.datasets.load_coco_json": "json_file image_root dataset_name",
    "detectron2.data.detection_utils.build_augmentation": "cfg is_train",
    "detectron2.data.detection_utils.read_image": "file_name format",
    "detectron2.engine.DefaultTrainer.auto_scale_workers": "cfg num_workers",
    "detectron2.engine.DefaultTrainer.build_lr_scheduler": "cfg optimizer",
    "detectron2.engine.DefaultTrainer.build_optimizer": "cfg model",
    "detectron2.engine.DefaultTrainer.test": "cfg model",
    "detectron2.engine.SimpleTrainer.__init__": "self model data_loader optimizer",
    "detectron2.engine.SimpleTrainer._write_metrics": "self loss_dict data_time",
    "detectron2.engine.create_ddp_model": "model fp16_compression kwargs",
    "detectron2.engine.default_argument_parser": "epilog",
    "detectron2.engine.default_setup": "cfg args",
    "detectron2.engine.default_writers": "output_dir max_iter",
    "detectron2.engine.hooks.EvalHook.__init__": "self eval_period eval_function",
    "detectron2.engine.hooks.LRScheduler.__init__": "self optimizer scheduler",
    "detectron2.engine.hooks.PeriodicCheckpointer.__init__": "self checkpointer period max_to_keep",
    "detectron2.engine.hooks.PeriodicWriter.__init__": "self writers period",
    "detectron2.engine.hooks.PreciseBN.__init__": "self period model data_loader num_iter",
    "detectron2.evaluation.COCOEvaluator.__init__": (
        "self dataset_name tasks output_dir max_dets_per_image use_fast_impl kpt_oks_sigmas"
    ),
    "detectron2.evaluation.coco_evaluation.instances_to_coco_json": "instances img_id",
    "detectron2.evaluation.inference_on_dataset": "model data_loader evaluator",
    "detectron2.evaluation.print_csv_format": "results",
    "detectron2.evaluation.verify_results": "cfg results",
    "detectron2.export.torchscript_patch.patch_builtin_len": "",
    "detectron2.layers.get_norm": "norm out_channels",
    "detectron2.modeling.backbone.fpn.build_resnet_fpn_backbone": "cfg input_shape",
    "detectron2.modeling.build_model": "cfg",
    "detectron2.modeling.build_resnet_backbone": "cfg input_shape",
    "detectron2.solver.LRMultiplier.__init__": "self optimizer multiplier max_iter",
    "detectron2.utils.logger.setup_logger": "output distributed_rank name",
    "detectron2.utils.visualizer.Visualizer.__init__": "self img_rgb metadata",
    "fvcore.common.checkpoint.Checkpointer.__init__": "self model save_dir",
    "fvcore.common.checkpoint._filter_reused_missing_keys": "model keys",
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
        "load_state_dict": "self state_dict",
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
        "resume_or_load": "self path resume",
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


def find(path: str) -> Any:
    """Return what a dotted path of modules, classes and functions names."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(path)


def parameters(function: Any) -> list[str]:
    # Detectron2's `configurable` takes a config in the place of the arguments below it.
    return list(inspect.signature(function).parameters)


def test_every_name_that_we_import_is_there() -> None:
    gone = []
    for module, name in sorted(set(imported())):
        try:
            find(f"{module}.{name}")
        except (ImportError, AttributeError):
            gone.append(f"{module}.{name}")
    assert not gone, f"this Detectron2 or fvcore lacks {gone}"


def test_the_private_names_are_listed() -> None:
    private = {f"{module}.{name}" for module, name in imported() if name.startswith("_")}
    assert private == PRIVATE_IMPORTS


@pytest.mark.parametrize("path", CALLS)
def test_what_we_call_takes_the_arguments_that_we_give(path: str) -> None:
    ours = CALLS[path].split()
    assert [name for name in parameters(find(path)) if name in ours] == ours


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
    assert hasattr(default_argument_parser(), "_actions")
    assert {"incorrect_shapes", "missing_keys", "unexpected_keys"} <= set(
        find("fvcore.common.checkpoint._IncompatibleKeys")._fields
    )
    assert ShapeSpec(channels=3).channels == 3


def test_the_samplers_draw_what_a_resumed_run_needs() -> None:
    for sampler in (
        samplers.TrainingSampler(4, seed=5),
        samplers.RepeatFactorTrainingSampler(torch.ones(4), seed=5),
    ):
        assert sampler._seed == 5
    assert hasattr(samplers.RandomSubsetTrainingSampler(4, 0.5), "_indexes_subset")
    mapped = MapDataset([1, 2, 3, 4], str)
    assert mapped._dataset == [1, 2, 3, 4]
    stream = ToIterableDataset(mapped, sampler, shard_chunk_size=2)
    assert (stream.dataset, stream.sampler) == (mapped, sampler)
    assert stream.shard_chunk_size == 2
