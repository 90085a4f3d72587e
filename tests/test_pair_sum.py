"""The sums over pairs against the pairs themselves, one by one."""

import pytest
import torch
from dirty import fuzz_with
from hypothesis import given
from hypothesis import strategies as st

from nl_detectron.layers.pair_sum import relu_pair_sum

pytestmark = pytest.mark.usefixtures("path")


def pair_by_pair(a, b, g):
    """The definition, in float64."""
    pairs = a.double().unsqueeze(2) + b.double().unsqueeze(1)
    return pairs.relu() @ g.double()


# Few values: most draws have ties, and pairs whose sum is exactly zero.
coarse = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=7)


@fuzz_with(30)
@given(a=coarse, b=coarse)
def test_ties_match_relu(a, b):
    """At a_i + b_j = 0 ReLU's derivative is 0: the pair counts for nothing."""
    leaves = [torch.tensor([values], dtype=torch.float64, requires_grad=True) for values in (a, b)]
    leaves.append(torch.randn(1, len(b), 4, dtype=torch.float64, requires_grad=True))
    y, expected = relu_pair_sum(*leaves), pair_by_pair(*leaves)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    grads, wanted = (torch.autograd.grad(of, leaves, grad) for of in (y, expected))
    torch.testing.assert_close(grads, wanted)


def test_first_and_second_derivatives():
    a, b, g = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 4), (2, 5), (2, 5, 4))
    )
    assert torch.autograd.gradcheck(relu_pair_sum, (a, b, g))
    assert torch.autograd.gradgradcheck(relu_pair_sum, (a, b, g))


def test_large_opposite_offsets_keep_the_digits():
    a, b, g = torch.randn(1, 40) + 1e5, torch.randn(1, 50) - 1e5, torch.randn(1, 50, 4)
    exact = pair_by_pair(a, b, g)
    assert (relu_pair_sum(a, b, g) - exact).norm() < 1e-6 * exact.norm()


def test_half_precision_sums_in_float32():
    """4000 summands of 30 make 120000, more than half precision holds."""
    a, b = torch.full((1, 3), 1e-4), torch.full((1, 4000), 1e-4)
    g = torch.full((1, 4000, 2), 30.0, dtype=torch.float16, requires_grad=True)
    a.requires_grad_()
    y = relu_pair_sum(a, b, g)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), torch.full((1, 3, 2), 24.0), rtol=5e-3, atol=0)
    (grad_a,) = torch.autograd.grad(y.float().sum(), a)
    torch.testing.assert_close(grad_a, torch.full((1, 3), 240000.0), rtol=5e-3, atol=0)


def test_autocast_does_not_narrow_the_sums():
    a, b, g = torch.randn(2, 9), torch.randn(2, 5), torch.randn(2, 5, 3)
    expected = relu_pair_sum(a, b, g)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(relu_pair_sum(a, b, g), expected)
