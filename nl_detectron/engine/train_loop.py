"""What both trainers change in Detectron2's training loop."""

from detectron2.engine import EvalHook, HookBase
from detectron2.engine.train_loop import TrainerBase


class EvaluateOnSuccess(TrainerBase):
    """Do not evaluate after an error or SIGTERM in the last iteration.

    Detectron2's `EvalHook` means not to either, but takes that iteration for a finished training.
    """

    _hooks: list[HookBase]

    def after_train(self) -> None:
        if self.iter < self.max_iter:
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, EvalHook)]
        super().after_train()
