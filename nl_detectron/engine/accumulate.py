"""One optimizer update: gradient accumulation, mixed precision, several processes."""

import contextlib
import time
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer, create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .batch_norm import average_over_processes
from .run_errors import DivergedError, check_losses, worker_error
from .train_loop import EvaluateOnSuccess

# torch notices a dead worker within milliseconds, unless the machine is very busy.
_NOTICED_SECONDS = 1.0


def to_distributed(model: nn.Module, **options: Any) -> nn.Module:
    """Wrap `model` for the process group, on its GPU or on the CPU; a single process needs nothing.

    Args:
        options: of Detectron2's `create_ddp_model`, which takes the GPU to be that of the local
            rank, and a GPU to be there, unless told.
    """
    device = next(model.parameters()).device
    device_ids = [device] if device.type == "cuda" else None
    return create_ddp_model(model, device_ids=device_ids, **options)


class StepTrainer(EvaluateOnSuccess, SimpleTrainer):
    """Detectron2's `SimpleTrainer` whose step may take several batches.

    One iteration is one optimizer update. It takes `accumulate_steps` batches from the loader and
    averages their losses, so k batches give the update of one batch of k times the size, wherever
    the loss is a mean over images. Losses that Detectron2 averages over the regions of a batch
    (the mask loss, for one) are averaged per batch first, as they are per GPU in its
    data-parallel training; and batch norms see one batch at a time.

    Args:
        model, data_loader, optimizer: as in `SimpleTrainer`.
        accumulate_steps: batches per update, at least 1.
        amp: autocast the forward pass: float16 with loss scaling on a GPU, bfloat16 on the CPU.

    Raises:
        DivergedError: a loss of any process is not finite, which raises it in all processes, or
            Detectron2 found scores of this process that are not. The weights are those of the
            iteration before.
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
        if accumulate_steps < 1:
            raise ValueError(f"accumulate_steps is {accumulate_steps}; at least 1 is needed")
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
            try:
                data = next(self._data_loader_iter)
            except (ConnectionError, EOFError) as error:
                # A worker died while it handed over a batch, before torch noticed. Its handler of
                # SIGCHLD raises in here, with what ended the worker, and not somewhere later on.
                time.sleep(_NOTICED_SECONDS)
                raise worker_error() from error
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
        _average_batch_norm_statistics(self.model)
        self.after_backward()
        self._check_losses(mean_losses)
        self._write_metrics(mean_losses, data_time)
        # The optimizer may clip, which is meaningful for unscaled gradients only.
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
            try:
                losses = self.model(data)
            except FloatingPointError as error:  # proposals that are not finite, before any loss
                what = f"the model's outputs are not finite at iteration {self.iter} ({error})"
                raise DivergedError(what, amp=self.amp) from error
        losses = {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses
        return {name: loss.reshape(()) for name, loss in losses.items()}

    def _check_losses(self, losses: dict[str, torch.Tensor]) -> None:
        values = torch.stack(list(losses.values()))
        if comm.get_world_size() > 1:
            dist.all_reduce(values)
            values /= comm.get_world_size()
        check_losses(dict(zip(losses, values.tolist(), strict=True)), self.iter, amp=self.amp)


def _average_batch_norm_statistics(model: nn.Module) -> None:
    """Make the running statistics those of all processes, as they would otherwise drift apart.

    Detectron2 keeps each process's own, saves the first one's, and evaluates every part of the
    data set with another. A running mean is linear, so the average of all is that of a process
    that had seen every image.
    """
    average_over_processes(
        [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
    )
