"""The block compiled, traced and exported."""

import copy
import io
from collections.abc import Callable

import onnxruntime
import pytest
import torch
import versions
from torch import nn

from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock

FREE = (dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC),)  # height and width
OTHER_SIZES = [(7, 5), (6, 8), (3, 11), (12, 12)]


def make(form: str) -> NonLocalBlock:
    torch.manual_seed(1)
    block = NonLocalBlock(16, pairwise=form)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 16, height, width)


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_compile_in_one_graph(form):
    """Forward and backward, at several sizes. The back end is one that needs no C compiler."""
    torch._dynamo.reset()
    block = make(form)
    compiled = torch.compile(copy.deepcopy(block), fullgraph=True, backend="aot_eager")
    for size in OTHER_SIZES[:2]:
        x = image(*size).requires_grad_()
        expected_x = x.detach().clone().requires_grad_()
        z, expected = compiled(x), block(expected_x)
        assert_same(z, expected)
        z.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, expected_x.grad, rtol=1e-3, atol=1e-4)
    for got, want in zip(compiled.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-3, atol=1e-3)


def trace(block: NonLocalBlock, x: torch.Tensor) -> Callable:
    return torch.jit.trace(block, x)


def export(block: NonLocalBlock, x: torch.Tensor) -> Callable:
    return torch.export.export(block, (x,), dynamic_shapes=FREE).module()


def onnx(block: NonLocalBlock, x: torch.Tensor) -> Callable:
    buffer = io.BytesIO()
    torch.onnx.export(block, (x,), dynamic_shapes=FREE, verbose=False).save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {entry.name: x.numpy()})[0])


@pytest.mark.parametrize("record", [trace, pytest.param(export, marks=versions.free_sizes), onnx])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
@torch.no_grad()
def test_recorded_block_serves_other_sizes(form, record):
    block = make(form).eval()
    recorded = record(block, image(9, 10))
    for size in OTHER_SIZES:
        x = image(*size)
        assert_same(recorded(x), block(x))
