"""Detectron2's `DefaultTrainer` for both kinds of config, on GPU or CPU."""

import logging
import os
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase, default_writers, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    PanopticFPN,
)
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..checkpoint import Checkpointer
from ..config import Config, RunSettings, check_config
from ..config.config_file import short_repr
from ..data.catalog import classes_differ, metadata_of
from ..tasks import task_of
from ..utils.errors import ConfigError
from .accumulate import StepTrainer, to_distributed
from .batch_norm import PreciseBN, norms_with_statistics
from .residual_norm import ResidualNormHook
from .resume import ExactResume
from .run_errors import CheckWeights
from .sigterm import SaveOnSigterm, insert_before_evaluation
from .train_loop import EvaluateOnSuccess
from .wandb_run import WandbRun

logger = logging.getLogger(__name__)


class Trainer(EvaluateOnSuccess, DefaultTrainer):
    """Train, checkpoint and evaluate as a YAML config or a LazyConfig says.

    Hooks, files, schedule, checkpoints and the methods to override (``build_model``,
    ``build_train_loader``, ``build_evaluator``, ``build_hooks``, ...) are Detectron2's; they get
    the config as it was loaded. A subclass runs by ``main(args, trainer=MyTrainer)``.

    An iteration takes ``SOLVER.ACCUMULATE_STEPS`` batches of ``SOLVER.IMS_PER_BATCH`` samples. In
    addition to the hooks of ``build_hooks`` there are always `ResidualNormHook`, `CheckWeights`,
    `SaveOnSigterm` and `ExactResume`.
    """

    def __init__(self, cfg: Config) -> None:
        # DefaultTrainer's own constructor cannot be used: it hands GPU numbers to models on the
        # CPU and has no place for another inner trainer.
        TrainerBase.__init__(self)
        if isinstance(cfg, CfgNode):
            cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.settings = settings = RunSettings.of(cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = to_distributed(model, **settings.ddp)
        self._trainer = StepTrainer(
            model=model,
            data_loader=data_loader,
            optimizer=optimizer,
            accumulate_steps=settings.accumulate_steps,
            amp=settings.amp,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, settings.output_dir, trainer=weakref.proxy(self))
        self.checkpointer.metadata = metadata_of(settings.train_datasets)
        self.start_iter = 0
        self.max_iter = settings.max_iter
        self._last_eval_results: dict[str, Any] = {}
        self._save_on_sigterm = save = SaveOnSigterm(self.checkpointer, data_loader)
        self.register_hooks(
            [
                ResidualNormHook(model, period=settings.log_period)
                if comm.is_main_process()
                else None,
                CheckWeights(model, settings.checkpoint_period),
                *insert_before_evaluation(self.build_hooks(), save),
                ExactResume(data_loader, accumulate_steps=settings.accumulate_steps),
            ]
        )

    def build_hooks(self) -> list[HookBase | None]:
        """Return Detectron2's hooks, in its order, and that of Weights & Biases."""
        settings, is_main = self.settings, comm.is_main_process()
        project, writers = settings.wandb_project, self.build_writers() if is_main else []
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            self._build_precise_bn(),
            hooks.PeriodicCheckpointer(
                self.checkpointer, settings.checkpoint_period, settings.max_to_keep
            )
            if is_main
            else None,
            hooks.EvalHook(settings.eval_period, self._evaluate),
            hooks.PeriodicWriter(writers, settings.log_period) if is_main else None,
            WandbRun(project, settings.output_dir, writers) if is_main and project else None,
        ]

    def build_writers(self) -> list[EventWriter]:
        """Return Detectron2's writers."""
        return default_writers(self.settings.output_dir, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of the output folder, or else the weights to start from."""
        self.checkpointer.resume_or_load(self.settings.weights, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            # A checkpoint holds the number of the iteration that was just finished.
            self.start_iter = self.iter + 1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "_trainer" not in state_dict:
            # Detectron2's LazyConfig script and older versions of ours save the inner trainer's.
            inner = {key: value for key, value in state_dict.items() if key != "hooks"}
            state_dict = {**state_dict, "_trainer": inner}
        super().load_state_dict(state_dict)

    def train(self) -> dict[str, Any]:
        """Train, and return the results of the last evaluation; in other processes than the main
        one there are none. They are compared with the expected ones, see `verify`."""
        self._evaluations(self.cfg)  # what one lacks is an error before the first iteration
        check_test_classes(self.cfg, self.checkpointer.metadata)
        try:
            TrainerBase.train(self, self.start_iter, self.max_iter)
        finally:
            self._save_on_sigterm.after_train()  # not reached where another hook's has failed
        verify(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def _evaluate(self) -> dict[str, Any]:
        results = self.test(self.cfg, self.model)
        if self.iter >= self.max_iter and uses_tta(self.cfg):
            results = {**results, **self.test_with_TTA(self.cfg, self.model)}
        self._last_eval_results = results
        return results

    def _build_precise_bn(self) -> HookBase | None:
        if not isinstance(self.cfg, CfgNode):
            return None
        if not (self.cfg.TEST.PRECISE_BN.ENABLED and norms_with_statistics(self.model)):
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # a second loader's processes would cost memory
        images = cfg.TEST.PRECISE_BN.NUM_ITER
        loader = self.build_train_loader(cfg)
        return PreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, images)

    @classmethod
    def build_model(cls, cfg: Config) -> nn.Module:
        if isinstance(cfg, CfgNode):
            check_config(cfg)
            return super().build_model(cfg)
        model = instantiate(cfg.model).to(cfg.train.device)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: Config, model: nn.Module) -> Optimizer:
        if isinstance(cfg, CfgNode):
            return super().build_optimizer(cfg, model)
        cfg.optimizer.params.model = model
        return instantiate(cfg.optimizer)

    @classmethod
    def build_lr_scheduler(cls, cfg: Config, optimizer: Optimizer) -> LRScheduler:
        if isinstance(cfg, CfgNode):
            return super().build_lr_scheduler(cfg, optimizer)
        return LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)

    @classmethod
    def build_train_loader(cls, cfg: Config) -> Iterable[list[dict[str, Any]]]:
        return task_of(cfg).build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: Config, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        return task_of(cfg).build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(
        cls, cfg: Config, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        return task_of(cfg).build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test(
        cls,
        cfg: Config,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Return the results on the test data, by data set if the config has several."""
        results: dict[str, Any] = {}
        for name, loader, evaluator in cls._evaluations(cfg, evaluators):
            loader = task_of(cfg).go_on(cfg, name, model, loader, evaluator)
            results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:  # noqa: N802
        """Return the results with test-time augmentation, as in Detectron2's ``train_net.py``.

        Keys get the suffix ``_TTA``. Files go to ``OUTPUT_DIR/inference_TTA``.
        """
        logger.info("Running inference with test-time augmentation ...")
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return {f"{key}_TTA": value for key, value in results.items()}

    @classmethod
    def _evaluations(
        cls, cfg: Config, evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None
    ) -> list[tuple[str, Iterable[list[dict[str, Any]]], DatasetEvaluator]]:
        """Return name, loader and evaluator of each data set to test on."""
        names = RunSettings.of(cfg).test_datasets
        if isinstance(cfg, DictConfig):  # it has one loader and one evaluator for all of them
            names = (", ".join(names),)
        loaders = [cls.build_test_loader(cfg, name) for name in names]
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if not evaluators:
            evaluators = [cls.build_evaluator(cfg, name) for name in names]
        return list(zip(names, loaders, evaluators, strict=True))


def check_test_classes(cfg: Config, trained: Mapping[str, Any]) -> None:
    """Raise ConfigError if a dataset to test on has other classes than the metadata `trained`."""
    expected = trained.get("thing_classes")
    for name in RunSettings.of(cfg).test_datasets:
        found = metadata_of([name]).get("thing_classes")
        if classes_differ(found, expected):
            file = MetadataCatalog.get(name).get("json_file", "no annotation file")
            raise ConfigError(
                f"dataset '{name}' ({file}) has the classes {short_repr(found)}, expected those "
                f"that the model is trained on, {short_repr(expected)}, in this order"
            )


def uses_tta(cfg: Config) -> bool:
    """Whether a config asks for test-time augmentation; a LazyConfig has no key for it."""
    return isinstance(cfg, CfgNode) and cfg.TEST.AUG.ENABLED


def check_tta(cfg: Config) -> None:
    """Raise ConfigError if Detectron2 has no test-time augmentation for the model of a config."""
    if not uses_tta(cfg):
        return
    name = cfg.MODEL.META_ARCHITECTURE
    model = META_ARCH_REGISTRY.get(name)
    if not issubclass(model, GeneralizedRCNN) or issubclass(model, PanopticFPN):
        found = f"MODEL.META_ARCHITECTURE {name}"
    elif cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:
        found = f"MODEL.{'KEYPOINT_ON' if cfg.MODEL.KEYPOINT_ON else 'LOAD_PROPOSALS'} True"
    else:
        return
    raise ConfigError(
        "TEST.AUG.ENABLED is True; expected an R-CNN without keypoints and precomputed proposals, "
        f"got {found}; set TEST.AUG.ENABLED False"
    )


def verify(cfg: Config, results: dict[str, Any]) -> None:
    """Compare `results` with the config's expected ones, if it has any, in the main process.

    Raises:
        SystemExit: with status 1, if they differ; both are in the log.
    """
    if comm.is_main_process():
        test = CfgNode({"EXPECTED_RESULTS": RunSettings.of(cfg).expected_results})
        verify_results(CfgNode({"TEST": test}), results)
