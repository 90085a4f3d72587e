"""The logged share that a block adds to its input."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn
from torch.utils.checkpoint import checkpoint

from nl_detectron.engine.hooks import ResidualNormHook
from nl_detectron.layers import NonLocalBlock


class Net(nn.Module):
    def __init__(self, *, checkpointed=False):
        super().__init__()
        self.block = NonLocalBlock(4, norm="")
        self.checkpointed = checkpointed
        self.inputs = []

    def forward(self, x):
        self.inputs.append(x)
        y = checkpoint(self.block, x, use_reentrant=False) if self.checkpointed else self.block(x)
        return {"loss": y.float().square().sum()}


def train(net, *, iterations, period, batch=2, learning_rate=0.0, autocast=False):
    """Train and return the logged ratios by iteration."""
    data = [torch.randn(batch, 4, 6, 6) for _ in range(iterations)]
    trainer = SimpleTrainer(net, data, torch.optim.SGD(net.parameters(), learning_rate))
    hook = ResidualNormHook(net, period=period)
    trainer.register_hooks([hook])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        trainer.train(0, iterations)
    assert not net.block._forward_hooks
    logged = trainer.storage.histories().get("nonlocal/block/residual_ratio")
    return {int(i): value for value, i in logged.values()} if logged else {}


def ratio(block, x):
    with torch.no_grad():
        return float((block(x) - x).norm() / x.norm())


def trained_net(**options):
    torch.manual_seed(0)
    net = Net(**options)
    nn.init.normal_(net.block.out.weight)
    nn.init.normal_(net.block.g.weight)
    return net


@pytest.mark.parametrize(
    ("options", "autocast", "tolerance"),
    [({}, False, 1e-6), ({"checkpointed": True}, False, 1e-6), ({}, True, 0.05)],
)
def test_the_ratio_is_logged_every_period_iterations(options, autocast, tolerance):
    net = trained_net(**options)
    logged = train(net, iterations=6, period=3, autocast=autocast)
    expected = {i: ratio(net.block, net.inputs[i]) for i in (2, 5)}
    assert logged == pytest.approx(expected, rel=tolerance)
    assert logged[2] > 0.01


def test_a_block_without_regions_logs_nothing():
    assert train(trained_net(), iterations=1, period=1, batch=0) == {}


def test_training_is_not_changed():
    nets = [trained_net(), trained_net()]
    for net, period in zip(nets, (1, 100), strict=True):
        torch.manual_seed(1)
        train(net, iterations=3, period=period, learning_rate=1e-3)
    for with_hook, without in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(with_hook, without)
