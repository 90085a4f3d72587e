"""What the training loop reads from a config, whichever kind of file it comes from."""

from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

# A YAML config, or a LazyConfig.
Config: TypeAlias = CfgNode | DictConfig

_YAML_LOG_PERIOD = 20  # Detectron2's; no key sets it


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of a run besides its model, data, optimizer and schedule.

    Args:
        output_dir: of all files; ``OUTPUT_DIR`` or ``train.output_dir``.
        device: ``MODEL.DEVICE`` or ``train.device``.
        weights: to start from; ``MODEL.WEIGHTS`` or ``train.init_checkpoint``.
        train_datasets, test_datasets: names; ``DATASETS``, or what `dataloader` says.
        max_iter: iterations; ``SOLVER.MAX_ITER`` or ``train.max_iter``.
        accumulate_steps: batches of an iteration; ``SOLVER.ACCUMULATE_STEPS`` or
            ``train.accumulate_steps``.
        amp: mixed precision; ``SOLVER.AMP.ENABLED`` or ``train.amp.enabled``.
        checkpoint_period: iterations between two checkpoints; ``SOLVER.CHECKPOINT_PERIOD`` or
            ``train.checkpointer.period``.
        max_to_keep: periodic checkpoints, None keeps all; ``train.checkpointer.max_to_keep``.
        eval_period: iterations between two evaluations, 0 is at the end only;
            ``TEST.EVAL_PERIOD`` or ``train.eval_period``.
        log_period: iterations between two lines of the log; ``train.log_period``.
        expected_results: lists of task, metric, value and tolerance, which the last evaluation is
            compared with; ``TEST.EXPECTED_RESULTS`` or ``train.expected_results``.
        wandb_project: of Weights & Biases, "" is none; ``WANDB.PROJECT`` or
            ``train.wandb_project``.
        ddp: arguments of Detectron2's ``create_ddp_model``; ``train.ddp``.
    """

    output_dir: str
    device: str
    weights: str
    train_datasets: tuple[str, ...]
    test_datasets: tuple[str, ...]
    max_iter: int
    accumulate_steps: int
    amp: bool
    checkpoint_period: int
    max_to_keep: int | None = None
    eval_period: int
    log_period: int = _YAML_LOG_PERIOD
    expected_results: list[Any]
    wandb_project: str
    ddp: dict[str, Any] = field(default_factory=lambda: {"broadcast_buffers": False})

    @classmethod
    def of(cls, cfg: Config) -> Self:
        if isinstance(cfg, DictConfig):
            return cls._of_lazy_config(cfg)
        return cls(
            output_dir=cfg.OUTPUT_DIR,
            device=cfg.MODEL.DEVICE,
            weights=cfg.MODEL.WEIGHTS,
            train_datasets=tuple(cfg.DATASETS.TRAIN),
            test_datasets=tuple(cfg.DATASETS.TEST),
            max_iter=cfg.SOLVER.MAX_ITER,
            accumulate_steps=cfg.SOLVER.ACCUMULATE_STEPS,
            amp=cfg.SOLVER.AMP.ENABLED,
            checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
            eval_period=cfg.TEST.EVAL_PERIOD,
            expected_results=cfg.TEST.EXPECTED_RESULTS,
            wandb_project=cfg.WANDB.PROJECT,
        )

    @classmethod
    def _of_lazy_config(cls, cfg: DictConfig) -> Self:
        def value(key: str, default: Any) -> Any:
            found = OmegaConf.select(cfg, key, default=default)
            return OmegaConf.to_object(found) if OmegaConf.is_config(found) else found

        def names(part: str) -> tuple[str, ...]:
            found = value(f"dataloader.{part}.dataset.names", ())
            return (found,) if isinstance(found, str) else tuple(found)

        # An evaluation needs few of these keys; `check_lazy_run` has asked for those of a training.
        return cls(
            output_dir=value("train.output_dir", ""),
            device=value("train.device", "cpu"),
            weights=value("train.init_checkpoint", ""),
            train_datasets=names("train"),
            test_datasets=names("test"),
            max_iter=value("train.max_iter", 0),
            accumulate_steps=value("train.accumulate_steps", 1),
            amp=value("train.amp.enabled", False),
            checkpoint_period=value("train.checkpointer.period", 0),
            max_to_keep=value("train.checkpointer.max_to_keep", None),
            eval_period=value("train.eval_period", 0),
            log_period=value("train.log_period", 0),
            expected_results=value("train.expected_results", []),
            wandb_project=value("train.wandb_project", ""),
            ddp=value("train.ddp", {}),
        )
