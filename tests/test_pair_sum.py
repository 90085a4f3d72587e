"""The sums over pairs against the pairs themselves, one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nl_detectron.layers import pair_sum
from nl_detectron.layers.pair_sum import relu_pair_sum


@pytest.fixture(params=["prefix sums", "map"], autouse=True)
def way(request, monkeypatch):
    """Both ways, whatever the size; few channels at once, so that there are several chunks."""
    limit = 10**9 if request.param == "map" else 0
    monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", limit)
    monkeypatch.setattr(pair_sum, "CHUNK_CHANNELS", 3)
    return request.param


def pair_by_pair(a, b, g):
    """The definition, as loops over plain numbers."""
    y = torch.zeros(a.shape[0], a.shape[1], g.shape[2], dtype=torch.float64)
    for n in range(a.shape[0]):
        for i in range(a.shape[1]):
            for j in range(b.shape[1]):
                weight = max(a[n, i].item() + b[n, j].item(), 0.0)
                y[n, i] += weight * g[n, j].double()
    return y


# Few values: most draws have ties, and pairs whose sum is exactly zero.
coarse = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])


@given(a=st.lists(coarse, min_size=1, max_size=7), b=st.lists(coarse, min_size=1, max_size=7))
@settings(max_examples=30, deadline=None)
def check_ties(a, b):
    a, b = torch.tensor([a]), torch.tensor([b])
    g = torch.arange(1.0, 1 + 4 * b.shape[1]).view(1, -1, 4)
    torch.testing.assert_close(relu_pair_sum(a, b, g), pair_by_pair(a, b, g).float())


def test_ties_and_equal_values():
    check_ties()


def test_gradients_at_ties_match_relu():
    """At a_i + b_j = 0 ReLU's derivative is 0: the pair counts for nothing."""
    a = torch.tensor([[1.0, 1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[-1.0, 2.0, 2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    g = torch.randn(1, 4, 5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(1, 3, 5, dtype=torch.float64)
    explicit = torch.relu(a.unsqueeze(2) + b.unsqueeze(1)) @ g
    expected = torch.autograd.grad(explicit, (a, b, g), grad)
    got = torch.autograd.grad(relu_pair_sum(a, b, g), (a, b, g), grad)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_first_and_second_derivatives():
    a, b, g = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 4), (2, 5), (2, 5, 4))
    )
    assert torch.autograd.gradcheck(relu_pair_sum, (a, b, g))
    assert torch.autograd.gradgradcheck(relu_pair_sum, (a, b, g))


def test_large_opposite_offsets_keep_the_digits():
    a, b, g = torch.randn(1, 40) + 1e5, torch.randn(1, 50) - 1e5, torch.randn(1, 50, 4)
    exact = (a.double().unsqueeze(2) + b.double().unsqueeze(1)).relu() @ g.double()
    error = (relu_pair_sum(a, b, g) - exact).norm() / exact.norm()
    assert error < 1e-6


def test_half_precision_sums_in_float32():
    """2000 summands of 30 make 60000 steps' worth more than half precision holds."""
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
