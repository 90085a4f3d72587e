"""The operation against the paper's formula, computed pair by pair in float64."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nl_detectron.layers import (
    PAIRWISE_FORMS,
    explicit_nonlocal,
    nonlocal_operation,
    nonlocal_ops,
    pair_sum,
    pairwise_weights,
)

SOFTMAX_FORMS = ("gaussian", "embedded_gaussian")
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
SIZES = [(1, 1), (1, 7), (9, 1), (13, 4), (35, 35)]


@pytest.fixture(autouse=True)
def seed():
    """Fresh inputs in every run; pytest prints the seed with a failure."""
    value = random.SystemRandom().randrange(2**31)
    print(f"torch.manual_seed({value})")
    torch.manual_seed(value)


@pytest.fixture(params=["small", "large"])
def path(request, monkeypatch):
    """The ways of small inputs, and of large ones in several chunks, at any size."""
    small = request.param == "small"
    monkeypatch.setattr(nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 10**9 if small else 0)
    monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", 10**9 if small else 0)
    monkeypatch.setattr(pair_sum, "CHUNK_CHANNELS", 3)
    return request.param


def formula(theta, phi, g, *, pairwise, scale, w_f=None):
    """Equation 1 for one image at a time: independent of the code under test."""
    results = []
    for t, p, v in zip(theta, phi, g, strict=True):
        if pairwise == "concatenation":
            half = t.shape[1]
            f = torch.einsum("d,id->i", w_f[:half], t)[:, None]
            f = (f + torch.einsum("d,jd->j", w_f[half:], p)[None, :]).clamp(min=0)
            weights = f / p.shape[0]
        else:
            f = torch.einsum("id,jd->ij", t, p)
            if pairwise == "dot_product":
                weights = f / p.shape[0]
            else:
                f = f / t.shape[1] ** 0.5 if scale else f
                f = (f - f.amax(1, keepdim=True).detach()).exp()
                weights = f / f.sum(1, keepdim=True)
        results.append(torch.einsum("ij,je->ie", weights, v))
    return torch.stack(results)


def make_inputs(form, positions, keys, *, dtype, batch=2, width=6, out_width=None):
    """Leaves of `dtype`; in the Gaussian form of equal sizes theta and phi are one tensor."""
    out_width = out_width or (width // 2 if form == "gaussian" else width)
    theta = torch.randn(batch, positions, width).to(dtype).requires_grad_()
    same = form == "gaussian" and positions == keys
    phi = theta if same else torch.randn(batch, keys, width).to(dtype).requires_grad_()
    g = torch.randn(batch, keys, out_width).to(dtype).requires_grad_()
    w_f = None
    if form == "concatenation":
        w_f = torch.randn(2 * width).to(dtype).requires_grad_()
    return theta, phi, g, w_f


def in_float64(tensors):
    """Double copies as new leaves; one tensor given twice stays one."""
    copies = {}
    for t in tensors:
        if t is not None and id(t) not in copies:
            copies[id(t)] = t.detach().double().requires_grad_()
    return [None if t is None else copies[id(t)] for t in tensors]


def unique(tensors):
    return list({id(t): t for t in tensors if t is not None}.values())


def relative_error(got, expected, least=1e-30):
    """The error's norm over that of `expected`, or over `least` where that is more."""
    assert got.shape == expected.shape
    return ((got.double() - expected).norm() / expected.norm().clamp(min=least)).item()


def magnitude(theta, phi, g, *, pairwise, scale, w_f=None):
    """The norm that y would have if none of its terms cancelled: its rounding follows this."""
    if pairwise in ("dot_product", "concatenation"):
        theta, phi = theta.abs(), phi.abs()
        w_f = None if w_f is None else w_f.abs()
    return formula(theta, phi, g.abs(), pairwise=pairwise, scale=scale, w_f=w_f).norm().item()


def assert_agrees(operation, inputs, *, pairwise, scale, tolerance, gradient_tolerance):
    exact_inputs = in_float64(inputs)
    y = operation(*inputs[:3], pairwise=pairwise, scale=scale, w_f=inputs[3])
    expected = formula(*exact_inputs[:3], pairwise=pairwise, scale=scale, w_f=exact_inputs[3])
    assert y.dtype == inputs[2].dtype
    terms = magnitude(*exact_inputs[:3], pairwise=pairwise, scale=scale, w_f=exact_inputs[3])
    assert relative_error(y, expected, least=0.1 * terms) <= tolerance
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, unique(inputs), grad)
    exact = torch.autograd.grad(expected, unique(exact_inputs), grad.double())
    # A softmax over a single position has no gradient: compare such a one with the largest.
    largest = max(e.norm() for e in exact)
    for got, want in zip(grads, exact, strict=True):
        error = (got.double() - want).norm()
        assert error <= gradient_tolerance * max(want.norm(), 1e-2 * largest)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_float32_is_the_formula(form, sizes, scale, path):
    inputs = make_inputs(form, *sizes, dtype=torch.float32)
    assert_agrees(
        nonlocal_operation, inputs, pairwise=form, scale=scale,
        tolerance=1e-5, gradient_tolerance=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_large_float32_is_the_formula(form):
    """196 positions and 64 channels with the module's own limits, which nothing here changes."""
    inputs = make_inputs(form, 196, 196, dtype=torch.float32, width=64)
    assert_agrees(
        nonlocal_operation, inputs, pairwise=form, scale=True,
        tolerance=1e-5, gradient_tolerance=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(9, 1), (35, 35), (60, 15)])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_half_precision_is_the_formula(form, sizes, dtype, path):
    inputs = make_inputs(form, *sizes, dtype=dtype, width=16)
    assert_agrees(
        nonlocal_operation, inputs, pairwise=form, scale=True,
        tolerance=TOLERANCES[dtype], gradient_tolerance=2 * TOLERANCES[dtype],
    )  # fmt: skip


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_the_explicit_form_is_the_formula(form, scale):
    inputs = make_inputs(form, 13, 4, dtype=torch.float32)
    assert_agrees(
        explicit_nonlocal, inputs, pairwise=form, scale=scale,
        tolerance=1e-5, gradient_tolerance=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("keys", [7, 3])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_gradcheck(form, keys):
    leaves = make_inputs(form, 7, keys, dtype=torch.float64, width=4)
    theta, phi = leaves[:2]

    def operation(*tensors):
        given = iter(tensors)
        t = next(given)
        p = t if phi is theta else next(given)
        return nonlocal_operation(t, p, next(given), pairwise=form, w_f=next(given, None))

    assert torch.autograd.gradcheck(operation, unique(leaves))


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_second_derivatives_of_small_inputs(form):
    leaves = make_inputs(form, 4, 3, dtype=torch.float64, width=2)
    if form == "concatenation":
        leaves = (*leaves[:3], leaves[3])

    def operation(theta, phi, g, w_f=None):
        return nonlocal_operation(theta, phi, g, pairwise=form, w_f=w_f)

    assert torch.autograd.gradgradcheck(operation, unique(leaves))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keys", [50, 12])
def test_gaussian_of_a_real_res4(dtype, keys, path):
    """1024 channels in the tens: products of 10^5 to 10^6, beyond what float16 holds."""
    x = (torch.rand(1, 50, 1024) * 60).to(dtype)
    phi = x if keys == 50 else x[:, :keys]
    g = torch.randn(1, keys, 512).to(dtype)
    for scale in (True, False):
        y = nonlocal_operation(x, phi, g, pairwise="gaussian", scale=scale)
        exact = formula(x.double(), phi.double(), g.double(), pairwise="gaussian", scale=scale)
        assert y.isfinite().all()
        # Float32 products of 10^6 are good to 0.1, which exp makes 10 %.
        assert relative_error(y, exact) <= (5e-2 if dtype == torch.float32 else 1e-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_sums_do_not_overflow_half_precision(form, dtype, path):
    """The mean over 3000 positions fits; their sum (10^6 for the products) does not."""
    theta = torch.full((1, 5, 8), 8.0, dtype=dtype)
    phi, g = (torch.full((1, 3000, 8), 8.0, dtype=dtype) for _ in range(2))
    w_f = torch.full((16,), 1.0, dtype=dtype) if form == "concatenation" else None
    expected = {"dot_product": 8.0**4, "concatenation": 2 * 8.0**3}.get(form, 8.0)
    y = nonlocal_operation(theta, phi, g, pairwise=form, w_f=w_f)
    assert relative_error(y, torch.full((1, 5, 8), expected).double()) <= TOLERANCES[dtype]


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_empty_batch(form, path):
    inputs = make_inputs(form, 6, 6, dtype=torch.float32, batch=0)
    y = nonlocal_operation(*inputs[:3], pairwise=form, w_f=inputs[3])
    assert y.shape == (0, 6, inputs[2].shape[2])
    for leaf, grad in zip(
        unique(inputs), torch.autograd.grad(y.sum(), unique(inputs)), strict=True
    ):
        assert grad.shape == leaf.shape
        assert not grad.any()


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_layout_of_the_inputs_does_not_matter(form, path):
    theta, phi, g, w_f = make_inputs(form, 9, 12, dtype=torch.float32)
    transposed = [t.detach().transpose(1, 2).contiguous().transpose(1, 2) for t in (theta, phi, g)]
    every_second = [t.detach().repeat_interleave(2, dim=1)[:, ::2] for t in (theta, phi, g)]
    expected = nonlocal_operation(theta, phi, g, pairwise=form, w_f=w_f)
    for inputs in (transposed, every_second):
        torch.testing.assert_close(
            nonlocal_operation(*inputs, pairwise=form, w_f=w_f), expected, rtol=1e-4, atol=1e-5
        )


def draws(function):
    """Draw sizes and numbers; few and small, for each example costs a run of every way."""
    sizes = {"positions": st.integers(1, 20), "keys": st.integers(1, 20)}
    return settings(max_examples=15, deadline=None)(
        given(**sizes, width=st.integers(1, 9), number=st.integers(0, 2**31))(function)
    )


@draws
def test_rows_of_a_softmax_map_sum_to_one(positions, keys, width, number):
    torch.manual_seed(number)
    theta, phi = torch.randn(2, positions, width) * 5, torch.randn(2, keys, width) * 5
    for form in SOFTMAX_FORMS:
        sums = pairwise_weights(theta, phi, pairwise=form).sum(-1)
        torch.testing.assert_close(sums, torch.ones(2, positions))
        # ... and of the operation's own, seen through a g of ones
        y = nonlocal_operation(theta, phi, torch.ones(2, keys, width), pairwise=form)
        torch.testing.assert_close(y, torch.ones(2, positions, width))


@draws
def test_concatenation_is_linear_or_zero_where_relu_is(positions, keys, width, number):
    torch.manual_seed(number)
    theta, phi = torch.rand(2, positions, width) + 0.1, torch.rand(2, keys, width) + 0.1
    g, w_f = torch.randn(2, keys, width), torch.rand(2 * width) + 0.1
    for limit in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", limit)
            y = nonlocal_operation(theta, phi, g, pairwise="concatenation", w_f=w_f)
            zero = nonlocal_operation(theta, phi, g, pairwise="concatenation", w_f=-w_f)
        a, b = theta @ w_f[:width], phi @ w_f[width:]
        linear = a.unsqueeze(2) * g.mean(1, keepdim=True) + (b.unsqueeze(2) * g).mean(1, True)
        torch.testing.assert_close(y, linear, rtol=1e-4, atol=1e-5)
        assert not zero.any()


@draws
def test_dot_product_is_the_same_by_both_orders(positions, keys, width, number):
    torch.manual_seed(number)
    theta, phi, g = (torch.randn(2, n, width).double() for n in (positions, keys, keys))
    by_map = (theta @ phi.transpose(1, 2)) @ g / keys
    by_channels = theta @ (phi.transpose(1, 2) @ g) / keys
    y = nonlocal_operation(theta, phi, g, pairwise="dot_product")
    torch.testing.assert_close(y, by_map)
    torch.testing.assert_close(y, by_channels)


@pytest.mark.parametrize("function", [nonlocal_operation, explicit_nonlocal])
def test_unknown_forms_and_missing_weights_are_errors(function):
    x = torch.randn(1, 3, 2)
    with pytest.raises(ValueError, match="max"):
        function(x, x, x, pairwise="max")
    with pytest.raises(ValueError, match="w_f"):
        function(x, x, x, pairwise="concatenation")
    with pytest.raises(ValueError, match="w_f"):
        function(x, x, x, pairwise="concatenation", w_f=torch.ones(3))


def test_no_map_in_memory_at_4200_positions(monkeypatch):
    """The largest tensor that any operator of a training step makes is far below N x M."""
    monkeypatch.setattr(nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 2**20)
    positions, width = 4200, 8
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes() // 4)
            return result

    for form in PAIRWISE_FORMS:
        inputs = make_inputs(form, positions, positions, dtype=torch.float32, batch=1, width=width)
        with Watch():
            y = nonlocal_operation(*inputs[:3], pairwise=form, w_f=inputs[3])
            torch.autograd.grad(y.sum(), unique(inputs))
        assert largest < positions * positions / 8, form
