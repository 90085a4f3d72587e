"""The operation against the paper's formula in float64, and sums that half precision lacks."""

import pytest
import torch

from nl_detectron.layers import (
    PAIRWISE_FORMS,
    explicit_nonlocal,
    nonlocal_operation,
)


def formula(theta, phi, g, w_f, *, pairwise, scale):
    """Equation 1: independent of the code under test."""
    width = theta.shape[2]
    if pairwise == "concatenation":
        a, b = theta @ w_f[:width], phi @ w_f[width:]
        weights = (a[:, :, None] + b[:, None, :]).clamp(min=0) / phi.shape[1]
    else:
        weights = torch.einsum("nid,njd->nij", theta, phi)
        if pairwise == "dot_product":
            weights = weights / phi.shape[1]
        else:
            weights = weights / width**0.5 if scale else weights
            weights = (weights - weights.amax(2, keepdim=True).detach()).exp()
            weights = weights / weights.sum(2, keepdim=True)
    return torch.einsum("nij,nje->nie", weights, g)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (9, 1), (13, 4), (35, 35), (196, 196)])
@pytest.mark.parametrize("operation", [nonlocal_operation, explicit_nonlocal])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_operation_matches_formula(form, operation, sizes, scale, path):
    positions, keys = sizes
    shapes = [(2, positions, 6), (2, keys, 6), (2, keys, 3), (12,)]
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    if form == "gaussian" and positions == keys:  # as in a block without subsampling
        leaves[1], exact[1] = leaves[0], exact[0]
    y = operation(*leaves[:3], w_f=leaves[3], pairwise=form, scale=scale)
    expected = formula(*exact, pairwise=form, scale=scale)
    # The terms of a sum may cancel: its rounding follows their size.
    terms = formula(*(leaf.detach().abs() for leaf in exact), pairwise=form, scale=scale)
    assert (y - expected).norm() <= 1e-5 * max(expected.norm(), 0.1 * terms.norm())
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, leaves, grad, allow_unused=True)
    wanted = torch.autograd.grad(expected, exact, grad.double(), allow_unused=True)
    # A softmax over a single position has no gradient: compare such a one with the largest.
    largest = max(want.norm() for want in wanted if want is not None)
    for got, want in zip(grads, wanted, strict=True):
        if want is not None:
            assert (got - want).norm() <= 1e-4 * max(want.norm(), 1e-2 * largest)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_sums_do_not_overflow_half_precision(form, dtype, path):
    """The mean over 3000 positions fits; their sum does not, nor a product theta . phi (98304)."""
    theta = torch.full((1, 5, 8), 192.0, dtype=dtype)
    phi, g = (torch.full((1, 3000, 8), value, dtype=dtype) for value in (64.0, 0.5))
    w_f = torch.ones(16, dtype=dtype)
    expected = {"dot_product": 49152.0, "concatenation": 1024.0}.get(form, 0.5)
    y = nonlocal_operation(theta, phi, g, pairwise=form, w_f=w_f)
    torch.testing.assert_close(y.float(), torch.full((1, 5, 8), expected), rtol=2e-2, atol=0)


@pytest.mark.parametrize("function", [nonlocal_operation, explicit_nonlocal])
def test_unknown_forms_and_missing_weights_are_errors(function):
    x = torch.randn(1, 3, 2)
    with pytest.raises(ValueError, match="max"):
        function(x, x, x, pairwise="max")
    for w_f in (None, torch.ones(3)):
        with pytest.raises(ValueError, match="w_f"):
            function(x, x, x, pairwise="concatenation", w_f=w_f)
