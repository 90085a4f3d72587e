"""The training loop: Detectron2's trainers for both kinds of config, on GPU or CPU."""

import contextlib
import logging
import math
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.engine import (
    DefaultTrainer,
    EvalHook,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    default_writers,
    hooks,
)
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..checkpoint import Checkpointer
from ..config import Config, dataset_names, setting
from ..data import build as loaders
from ..data.catalog import classes_differ, metadata_of
from ..evaluation import build_evaluator
from ..evaluation.attention_evaluation import evaluate_attention
from ..modeling import build_model
from ..utils.errors import ConfigError, short_repr
from .data_order import ExactResume
from .hooks import (
    PreciseBN,
    ProgressWriter,
    ResidualNormHook,
    SaveOnSigterm,
    WandbRun,
    average_batch_norms,
)

logger = logging.getLogger(__name__)


class StepTrainer(SimpleTrainer):
    """Detectron2's `SimpleTrainer` whose step may take several batches.

    One iteration is one optimizer update. It takes `accumulate_steps` batches from the loader and
    averages their losses. If the loss is a mean over images, k batches give the update of one batch
    of k times the size. Losses that Detectron2 averages over the regions of a batch, such as the
    mask loss, are averaged per batch first, as per GPU in data-parallel training. Batch norms see
    one batch at a time.

    Args:
        model, data_loader, optimizer: as in `SimpleTrainer`.
        accumulate_steps: batches per update, at least 1.
        amp: autocast the forward pass: float16 with loss scaling on a GPU, bfloat16 on the CPU.

    Raises:
        FloatingPointError: a loss of any process is not finite. All processes raise it, with the
            weights of the previous iteration.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        accumulate_steps: int = 1,
        amp: bool = False,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.accumulate_steps = accumulate_steps
        self.amp = amp
        self.device = next(model.parameters()).device
        self.grad_scaler = torch.amp.GradScaler(enabled=amp and self.device.type == "cuda")

    def run_step(self) -> None:
        assert self.model.training, "the model was switched to eval mode during training"
        self.optimizer.zero_grad()
        data_time = 0.0
        mean_losses: dict[str, torch.Tensor] = {}
        for step in range(self.accumulate_steps):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            last = step == self.accumulate_steps - 1
            wait = isinstance(self.model, DistributedDataParallel) and not last
            # Gradients are summed over processes once, with the last batch's backward pass.
            with self.model.no_sync() if wait else contextlib.nullcontext():
                losses = self._losses(data)
                total = torch.stack(list(losses.values())).sum() / self.accumulate_steps
                self.grad_scaler.scale(total).backward()
            for name, loss in losses.items():
                part = loss.detach() / self.accumulate_steps
                mean_losses[name] = mean_losses[name] + part if name in mean_losses else part
        average_batch_norms(self.model, is_update=True)
        self.after_backward()
        self._check_losses(mean_losses)
        self._write_metrics(mean_losses, data_time)
        # The optimizer may clip, which needs unscaled gradients.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])

    def _losses(self, data: Any) -> dict[str, torch.Tensor]:
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.amp):
            losses = self.model(data)
        losses = {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses
        return {name: loss.reshape(()) for name, loss in losses.items()}

    def _check_losses(self, losses: dict[str, torch.Tensor]) -> None:
        # Detectron2 checks them in the main process alone, for which the others would wait.
        for values in comm.all_gather({name: loss.item() for name, loss in losses.items()}):
            if not all(map(math.isfinite, values.values())):
                raise FloatingPointError(f"losses at iteration {self.iter}: {values}")


class Trainer(DefaultTrainer):
    """Train, checkpoint and evaluate by a YAML config or a LazyConfig.

    Hooks, files, schedule, checkpoints and the methods to override (``build_model``,
    ``build_train_loader``, ``build_evaluator``, ``build_hooks``, ...) are Detectron2's. The methods
    get the loaded config. Run a subclass with ``main(args, trainer=MyTrainer)``.

    A subclass extends the list of ``super().build_hooks()``, which has `SaveOnSigterm`.

    An iteration takes ``SOLVER.ACCUMULATE_STEPS`` batches of ``SOLVER.IMS_PER_BATCH`` samples. The
    trainer adds `ResidualNormHook` and `ExactResume` to the hooks of ``build_hooks``.
    """

    _hooks: list[HookBase]

    def __init__(self, cfg: Config) -> None:
        # DefaultTrainer's own constructor passes GPU numbers to models on the CPU, and does not
        # support another inner trainer.
        TrainerBase.__init__(self)
        if isinstance(cfg, CfgNode):
            cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        device = next(model.parameters()).device
        # By default Detectron2 expects the GPU of the local rank.
        device_ids = [device] if device.type == "cuda" else None
        options = setting(cfg, "train.ddp") or {}
        model = create_ddp_model(model, device_ids=device_ids, **options)
        self._trainer = StepTrainer(
            model=model,
            data_loader=data_loader,
            optimizer=optimizer,
            accumulate_steps=setting(cfg, "SOLVER.ACCUMULATE_STEPS"),
            amp=setting(cfg, "SOLVER.AMP.ENABLED"),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        folder = setting(cfg, "OUTPUT_DIR")
        self.checkpointer = Checkpointer(model, folder, trainer=weakref.proxy(self))
        self.checkpointer.metadata = metadata_of(dataset_names(cfg, "train"))
        self.start_iter = 0
        self.max_iter = setting(cfg, "SOLVER.MAX_ITER")
        self._last_eval_results: dict[str, Any] = {}
        # The first and the last hook stay so in a subclass that adds some.
        self.register_hooks(
            [
                ResidualNormHook(model, period=setting(cfg, "train.log_period"))
                if comm.is_main_process()
                else None,
                *self.build_hooks(),
                ExactResume(data_loader, accumulate_steps=self._trainer.accumulate_steps),
            ]
        )

    def build_hooks(self) -> list[HookBase | None]:
        """Return Detectron2's hooks, in its order, and those for SIGTERM and Weights & Biases."""
        cfg = self.cfg
        save = SaveOnSigterm(self.checkpointer, self.data_loader)
        evaluate = hooks.EvalHook(setting(cfg, "TEST.EVAL_PERIOD"), self._evaluate)
        built: list[HookBase | None] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            self._build_precise_bn(),
        ]
        if not comm.is_main_process():
            return [*built, save, evaluate]
        period = setting(cfg, "SOLVER.CHECKPOINT_PERIOD")
        max_to_keep = setting(cfg, "train.checkpointer.max_to_keep")
        writers, project = self.build_writers(), setting(cfg, "WANDB.PROJECT")
        return [
            *built,
            hooks.PeriodicCheckpointer(self.checkpointer, period, max_to_keep),
            save,
            evaluate,
            ProgressWriter(writers, setting(cfg, "train.log_period")),
            WandbRun(project, setting(cfg, "OUTPUT_DIR"), writers) if project else None,
        ]

    def build_writers(self) -> list[EventWriter]:
        """Return Detectron2's writers."""
        return default_writers(setting(self.cfg, "OUTPUT_DIR"), self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of the output folder to resume, otherwise MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(setting(self.cfg, "MODEL.WEIGHTS"), resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            # A checkpoint has the number of the last finished iteration.
            self.start_iter = self.iter + 1

    def train(self) -> dict[str, Any]:
        """Train, compare the results of the last evaluation with expected ones, and return them.

        The results are empty in other processes than the main one. `verify` compares them.
        """
        self._evaluations(self.cfg)  # errors of evaluations come before the first iteration
        check_test_classes(self.cfg, self.checkpointer.metadata)
        TrainerBase.train(self, self.start_iter, self.max_iter)
        verify(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def after_train(self) -> None:
        # Detectron2's EvalHook regards a training that fails in its last iteration as finished.
        if self.iter < self.max_iter:
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, EvalHook)]
        super().after_train()

    def _evaluate(self) -> dict[str, Any]:
        test = self.test_with_TTA if self.iter >= self.max_iter else self.test
        self._last_eval_results = test(self.cfg, self.model)
        return {**self._last_eval_results, **self._evaluate_attention()}

    def _evaluate_attention(self) -> dict[str, float]:
        count = setting(self.cfg, "TEST.ATTENTION_SAMPLES")
        if not count:
            return {}
        # All processes load the dataset, which they may wait for, but the main one alone measures.
        loader = self.build_test_loader(self.cfg, dataset_names(self.cfg, "test")[0])
        if not comm.is_main_process():
            return {}
        model: Any = self.model
        return evaluate_attention(
            getattr(model, "module", model), islice(chain.from_iterable(loader), count)
        )

    def _build_precise_bn(self) -> HookBase | None:
        if not (isinstance(self.cfg, CfgNode) and self.cfg.TEST.PRECISE_BN.ENABLED):
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
            model = build_model(cfg)
        else:
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
        return loaders.build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: Config, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        return loaders.build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(
        cls, cfg: Config, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test(
        cls,
        cfg: Config,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Return the results on the test data, by dataset if the config has several."""
        results: dict[str, Any] = {}
        for name, loader, evaluator in cls._evaluations(cfg, evaluators):
            with loaders.annotation_errors(name.split(", "), is_loading=False):
                results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @classmethod
    def test_with_TTA(cls, cfg: Config, model: nn.Module) -> dict[str, Any]:  # noqa: N802
        """Return the results of `test` and, if TEST.AUG.ENABLED, those with test-time augmentation.

        Keys of the latter have the suffix ``_TTA``, as in Detectron2's ``train_net.py``.
        """
        results = cls.test(cfg, model)
        if isinstance(cfg, CfgNode) and cfg.TEST.AUG.ENABLED:
            folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
            evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
            augmented = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
            results = {**results, **{f"{key}_TTA": value for key, value in augmented.items()}}
        return results

    @classmethod
    def _evaluations(
        cls, cfg: Config, evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None
    ) -> list[tuple[str, Iterable[list[dict[str, Any]]], DatasetEvaluator]]:
        """Return name, loader and evaluator of each test dataset."""
        names = dataset_names(cfg, "test")
        if isinstance(cfg, DictConfig):  # it has one loader and one evaluator for all of them
            names = (", ".join(names),)
        loaders = [cls.build_test_loader(cfg, name) for name in names]
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if not evaluators:
            evaluators = [cls.build_evaluator(cfg, name) for name in names]
        return list(zip(names, loaders, evaluators, strict=True))


def check_test_classes(cfg: Config, trained: Mapping[str, Any]) -> None:
    """Raise ConfigError if a test dataset has other classes than the metadata `trained`."""
    expected = trained.get("thing_classes")
    for name in dataset_names(cfg, "test"):
        found = metadata_of([name]).get("thing_classes")
        if classes_differ(found, expected):
            file = MetadataCatalog.get(name).get("json_file", "no annotation file")
            raise ConfigError(
                f"dataset '{name}' ({file}) has the classes {short_repr(found)}, expected those "
                f"that the model is trained on, {short_repr(expected)}, in this order"
            )


def verify(cfg: Config, results: dict[str, Any]) -> None:
    """Compare `results` with expected ones of the config, if any, in the main process.

    Raises:
        SystemExit: with status 1, if they differ; both are in the log.
    """
    if comm.is_main_process():
        test = CfgNode({"EXPECTED_RESULTS": setting(cfg, "TEST.EXPECTED_RESULTS")})
        verify_results(CfgNode({"TEST": test}), results)
