"""The logged share that a block adds to its input."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from nl_detectron.engine.hooks import ResidualNormHook
from nl_detectron.layers import NonLocalBlock


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = NonLocalBlock(4, norm="")
        for parameter in self.block.parameters():
            nn.init.normal_(parameter)

    def forward(self, x):
        return {"loss": self.block(x).float().square().sum()}


def train(net, data, *, period, autocast=False):
    """Train and return the logged ratios by iteration."""
    trainer = SimpleTrainer(net, data, torch.optim.SGD(net.parameters(), 0.0))
    trainer.register_hooks([ResidualNormHook(net, period=period)])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        trainer.train(0, len(data))
    assert not net.block._forward_hooks
    logged = trainer.storage.histories().get("nonlocal/block/residual_ratio")
    return {int(i): value for value, i in logged.values()} if logged else {}


@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-6), (True, 0.05)])
def test_the_ratio_is_logged_every_period_iterations(autocast, tolerance):
    net, data = Net(), list(torch.randn(6, 2, 4, 6, 6))
    logged = train(net, data, period=3, autocast=autocast)
    with torch.no_grad():
        expected = {i: float((net.block(x) - x).norm() / x.norm()) for i, x in enumerate(data)}
    assert logged == pytest.approx({i: expected[i] for i in (2, 5)}, rel=tolerance)


def test_a_block_without_regions_logs_nothing():
    assert train(Net(), [torch.zeros(0, 4, 6, 6)], period=1) == {}
