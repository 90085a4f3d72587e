"""How much each non-local block adds to its input: is it used, or still the identity?"""

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ..layers import NonLocalBlock


class ResidualNormHook(HookBase):
    """Log ``||z - x|| / ||x||`` of every `NonLocalBlock` as ``nonlocal/<block>/residual_ratio``.

    z is a block's output and x its input; the norms are over all their values, of every forward
    pass in the iteration: zero for a block that is still the identity. A block that saw no value
    (no region in the batch) or no value but zero logs nothing. Writers of the main process show
    the figures, so only it needs the hook; it sees its own part of the batch. Register it before
    the hooks that evaluate and write: it then measures training alone, and is written in time.

    Args:
        model: the model that is trained, wrapped for several processes or not.
        period: iterations between two logged ones; at least 1. The others cost nothing.
    """

    def __init__(self, model: nn.Module, *, period: int = 20) -> None:
        if period < 1:
            raise ValueError(f"period is {period}; at least 1 is needed")
        self.model = model
        self.period = period
        self._sums: dict[str, Tensor] = {}
        self._handles: list = []

    def before_step(self) -> None:
        # The iterations after which Detectron2's PeriodicWriter writes.
        if (self.trainer.iter + 1) % self.period:
            return
        for name, module in self.model.named_modules():
            if isinstance(module, NonLocalBlock):
                name = name.removeprefix("module.")  # DistributedDataParallel's
                self._handles.append(module.register_forward_hook(self._measure_as(name)))

    def after_step(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        storage = get_event_storage()
        for name, sums in self._sums.items():
            branch, block_input = sums.tolist()
            if block_input > 0:
                ratio = (branch / block_input) ** 0.5
                # The value of one iteration: medians over the window would be of old ones.
                storage.put_scalar(f"nonlocal/{name}/residual_ratio", ratio, smoothing_hint=False)
        self._sums.clear()

    def _measure_as(self, name: str):
        @torch.no_grad()
        def measure(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            # In float32, as squares overflow half precision; on the device, as reading a number
            # would wait for it.
            x = inputs[0].detach().float()
            sums = torch.stack([(output.detach().float() - x).square().sum(), x.square().sum()])
            self._sums[name] = self._sums.get(name, 0) + sums

        return measure
