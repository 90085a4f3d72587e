"""The block with compilers, exporters, activation checkpointing and second derivatives."""

import copy
import io

import numpy as np
import onnxruntime
import pytest
import torch
import versions
from torch import nn
from torch.utils.checkpoint import checkpoint

from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock

DYNAMIC = torch.export.Dim.DYNAMIC
OTHER_SIZES = [(7, 5), (6, 8), (3, 11), (12, 12)]


def make(form: str, norm: str = "BN", subsample: int = 2) -> NonLocalBlock:
    torch.manual_seed(1)
    block = NonLocalBlock(16, pairwise=form, norm=norm, subsample=subsample)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def image(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 16, height, width)


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


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_trace_serves_other_sizes(form):
    block = make(form).eval()
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(block, image(9, 10)), buffer)
        buffer.seek(0)
        traced = torch.jit.load(buffer)
        for size in OTHER_SIZES:
            x = image(*size, batch=3)
            assert_same(traced(x), block(x))


@versions.free_sizes
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_export_with_dynamic_height_and_width(form):
    block = make(form).eval()
    exported = torch.export.export(
        block, (image(9, 10),), dynamic_shapes=({2: DYNAMIC, 3: DYNAMIC},)
    ).module()
    for size in OTHER_SIZES:
        x = image(*size)
        assert_same(exported(x), block(x))


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_onnx_at_other_sizes(form):
    block = make(form).eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        block, (image(9, 10),), dynamic_shapes=({2: DYNAMIC, 3: DYNAMIC},), verbose=False
    ).save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    for size in OTHER_SIZES:
        x = image(*size)
        (z,) = session.run(None, {entry.name: x.numpy()})
        np.testing.assert_allclose(z, block(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_gradient_checkpointing(form, use_reentrant):
    block = make(form, norm="LN")
    twin = copy.deepcopy(block)
    x = image(7, 5).requires_grad_()
    twin_x = x.detach().clone().requires_grad_()
    checkpoint(block, x, use_reentrant=use_reentrant).square().sum().backward()
    twin(twin_x).square().sum().backward()
    assert torch.equal(x.grad, twin_x.grad)
    for got, want in zip(block.parameters(), twin.parameters(), strict=True):
        assert torch.equal(got.grad, want.grad)


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_double_backward_of_small_inputs(form):
    """A gradient penalty, against the same in float64 by finite differences."""
    block = make(form, norm="").double()
    x = torch.randn(1, 16, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(block, (x,))
