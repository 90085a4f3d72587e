"""Detectron2's `DefaultTrainer`, on GPU or CPU, with gradient accumulation and our evaluators."""

import weakref
from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ..checkpoint import Checkpointer
from ..tasks import task_of
from .accumulate import StepTrainer, to_distributed
from .faults import CheckWeights
from .residual_norm import ResidualNormHook
from .resume import ExactResume
from .stop import StopOnTerm, before_evaluation
from .wandb_writer import WandbWriter


class Trainer(DefaultTrainer):
    """Train, checkpoint and evaluate as `cfg` says.

    Hooks, files, schedule, checkpoints and the class methods to override (``build_model``,
    ``build_train_loader``, ``build_evaluator``, ...) are Detectron2's. An iteration takes
    ``SOLVER.ACCUMULATE_STEPS`` batches of ``SOLVER.IMS_PER_BATCH`` images. Besides Detectron2's
    hooks there are `ResidualNormHook`, `CheckWeights`, `StopOnTerm` and `ExactResume`.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's own constructor cannot be used: it hands GPU numbers to models on the
        # CPU and has no place for another inner trainer.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = to_distributed(model, broadcast_buffers=False)
        self._trainer = StepTrainer(
            model=model,
            data_loader=data_loader,
            optimizer=optimizer,
            accumulate_steps=cfg.SOLVER.ACCUMULATE_STEPS,
            amp=cfg.SOLVER.AMP.ENABLED,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        if comm.is_main_process():
            self.register_hooks([ResidualNormHook(model)])
        self.register_hooks([CheckWeights(model, cfg.SOLVER.CHECKPOINT_PERIOD)])
        stop = StopOnTerm(self.checkpointer, data_loader)
        self.register_hooks(before_evaluation(self.build_hooks(), stop))
        steps = cfg.SOLVER.ACCUMULATE_STEPS
        self.register_hooks([ExactResume(data_loader, accumulate_steps=steps)])

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict]]:
        return task_of(cfg).build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        return task_of(cfg).build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return task_of(cfg).build_evaluator(cfg, dataset_name)

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's writers, and Weights & Biases if ``WANDB.PROJECT`` names a project."""
        writers = super().build_writers()
        if self.cfg.WANDB.PROJECT:
            writers.append(
                WandbWriter(project=self.cfg.WANDB.PROJECT, output_dir=self.cfg.OUTPUT_DIR)
            )
        return writers
