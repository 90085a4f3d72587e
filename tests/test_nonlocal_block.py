"""The block: the paper's equation 6, the identity at start, every shape, folding of the norm."""

import copy
import inspect
import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nl_detectron.layers import (
    PAIRWISE_FORMS,
    NonLocalBlock,
    nonlocal_block,
    nonlocal_ops,
    pair_sum,
    pairwise_weights,
)

SPATIAL = {1: (11,), 2: (5, 7), 3: (3, 5, 4)}
NORMS = ["BN", "GN", "LN", "SyncBN", "FrozenBN", "nnSyncBN", ""]


@pytest.fixture(autouse=True)
def seed():
    """Fresh inputs in every run; pytest prints the seed with a failure."""
    value = random.SystemRandom().randrange(2**31)
    print(f"torch.manual_seed({value})")
    torch.manual_seed(value)


def awake(block: NonLocalBlock) -> NonLocalBlock:
    """The block with all parameters and statistics random, so that nothing hides behind a zero."""
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    for name, buffer in block.named_buffers():
        if name.endswith(("running_var", "norm.weight")):
            nn.init.uniform_(buffer, 0.5, 2)
        elif buffer.is_floating_point():
            nn.init.normal_(buffer, std=0.3)
    return block


def make(channels=32, **options) -> NonLocalBlock:
    return awake(NonLocalBlock(channels, **options))


def channels_at(tensor):
    return tensor.flatten(2).transpose(1, 2)


def formula(
    block: NonLocalBlock, x: torch.Tensor, context: torch.Tensor | None = None
) -> torch.Tensor:
    """Equation 6, written out from the block's weights; `block` and `x` are float64.

    `pairwise_weights` is held against an independent formula in test_nonlocal_ops.py.
    """
    x_hat = x if context is None else context
    if block.subsample > 1:
        dims = x.dim() - 2
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
        window = (1, block.subsample, block.subsample) if dims == 3 else block.subsample
        x_hat = pool(x_hat, window, ceil_mode=True)

    def embed(conv, of):
        return channels_at(of) @ conv.weight.flatten(1).T + conv.bias

    theta, phi = channels_at(x), channels_at(x_hat)
    if block.pairwise != "gaussian":
        theta, phi = embed(block.theta, x), embed(block.phi, x_hat)
    weights = pairwise_weights(
        theta, phi, pairwise=block.pairwise, scale=block.scale, w_f=getattr(block, "w_f", None)
    )
    y = weights @ embed(block.g, x_hat)
    y = (y @ block.out.weight.flatten(1).T + block.out.bias).transpose(1, 2)
    if hasattr(block, "norm"):
        y = block.norm(y.contiguous().unsqueeze(2))
    return x + y.reshape(x.shape)


def assert_is_the_formula(block, x, grad=None, *, tolerance=1e-5, gradient_tolerance=1e-4):
    exact = copy.deepcopy(block).double()
    x = x.detach().requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    z, expected = block(x), formula(exact, exact_x)
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    assert (z - expected).norm() <= tolerance * expected.norm()
    grad = torch.randn_like(z) if grad is None else grad
    leaves = {"x": x, **dict(block.named_parameters())}
    exact_leaves = {"x": exact_x, **dict(exact.named_parameters())}
    grads = torch.autograd.grad(z, list(leaves.values()), grad)
    exact_grads = torch.autograd.grad(expected, list(exact_leaves.values()), grad.double())
    # Some gradients are zero but for rounding (a bias before a norm): those against the largest.
    least = max(e.norm() for e in exact_grads) * (1e-2 if x.dtype == torch.float32 else 1e-1)
    for name, got, want in zip(leaves, grads, exact_grads, strict=True):
        error = (got.double() - want).norm()
        assert error <= gradient_tolerance * max(want.norm(), least), name


ORDERS = [(form, order) for form in PAIRWISE_FORMS for order in ("positions", "keys")]


def take(monkeypatch, order):
    """Multiply in this order, whatever it costs."""
    monkeypatch.setattr(nonlocal_block, "cheapest_order", lambda orders: order)


@pytest.fixture(params=["small", "large"])
def path(request, monkeypatch):
    """The ways of small inputs, and of large ones in several chunks, at any size."""
    small = request.param == "small"
    monkeypatch.setattr(nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 10**9 if small else 0)
    monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", 10**9 if small else 0)
    monkeypatch.setattr(pair_sum, "CHUNK_CHANNELS", 3)


OPTIONS = [
    {"subsample": 1, "norm": "BN"},
    {"subsample": 2, "norm": "FrozenBN"},
    {"subsample": 2, "norm": "", "scale": False},
    {"subsample": 3, "norm": "GN"},
]
# Odd sizes, with partial windows, single positions and fewer positions than a window has.
SIZES = [*SPATIAL.values(), (9, 1), (2, 31)]


def test_signature() -> None:
    parameters = list(inspect.signature(NonLocalBlock).parameters.values())
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[1:])
    assert {parameter.name: parameter.default for parameter in parameters[1:]} == {
        "inter_channels": None, "pairwise": "embedded_gaussian", "subsample": 2, "norm": "BN",
        "scale": True, "dims": 2, "axes": "spacetime", "frames": 0, "init_std": 0.01,
    }  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_block_matches_formula(form, order, size, options, path, monkeypatch):
    take(monkeypatch, order)
    # Sharp attention: positions that all come out alike have no variance for a norm to divide by.
    block = make(64, pairwise=form, dims=len(size), **options)
    x = torch.randn(2, 64, *size)
    assert_is_the_formula(block, x if block.scale else 0.4 * x)  # as sharp without the scale


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
    "every second": lambda t: t.repeat_interleave(2, dim=2)[:, :, ::2],
}


@pytest.mark.parametrize(("layout", "grad_layout"), [*itertools.product(LAYOUTS, LAYOUTS)])
@pytest.mark.parametrize(("norm", "dims"), [("BN", 2), ("BN", 3), ("GN", 2)])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_layouts_match_formula_and_are_preserved(form, dims, norm, layout, grad_layout):
    """Torch's batch norm has wrong gradients for some strides: the block must not hand it those."""
    block = make(64, pairwise=form, dims=dims, norm=norm)
    x, grad = (torch.randn(2, 64, *SPATIAL[dims]) for _ in range(2))
    assert_is_the_formula(block, LAYOUTS[layout](x), LAYOUTS[grad_layout](grad))
    if layout != "every second":
        assert block(LAYOUTS[layout](x)).stride() == LAYOUTS[layout](x).stride()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)], ids=str
)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_half_precision(form, order, dtype, tolerance, path, monkeypatch):
    take(monkeypatch, order)
    block = make(pairwise=form, norm="").to(dtype)
    x = torch.randn(2, 32, 5, 7).to(dtype)
    assert_is_the_formula(block, x, tolerance=tolerance, gradient_tolerance=2 * tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)], ids=str
)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_autocast(form, order, dtype, tolerance, path, monkeypatch):
    take(monkeypatch, order)
    block = make(pairwise=form, norm="GN")
    x = torch.randn(2, 32, 5, 7, requires_grad=True)
    with torch.autocast("cpu", dtype):
        z = block(x)
    z.sum().backward()
    expected = formula(copy.deepcopy(block).double(), x.double())
    assert z.dtype == x.dtype
    assert (z - expected).norm() <= tolerance * expected.norm()
    assert all(p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gaussian_under_autocast_with_a_real_res4(dtype):
    """1024 channels in the tens: the products exceed float16 by far."""
    block = make(1024, pairwise="gaussian", norm="", subsample=1)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.01)
    x = torch.rand(1, 1024, 5, 7) * 60
    with torch.autocast("cpu", dtype):
        z = block(x)
    expected = formula(copy.deepcopy(block).double(), x.double())
    assert (z - expected).norm() <= 1e-2 * expected.norm()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_is_the_identity_at_start(form, order, norm, dims, monkeypatch):
    take(monkeypatch, order)
    block = NonLocalBlock(32, pairwise=form, norm=norm, dims=dims)
    x = torch.randn(2, 32, *SPATIAL[dims])
    for training in (True, False):
        block.train(training)
        if "Sync" in norm:
            block.norm.eval()  # synchronised statistics need a GPU; their scale counts here
        assert torch.equal(block(x), x)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_initialized_weights_get_gradients(norm):
    """One of its zeros gets a gradient, or the block would stay the identity for good."""
    block = NonLocalBlock(32, norm=norm)
    if "Sync" in norm:
        block.norm.eval()
    x = torch.randn(2, 32, 5, 7)
    (block(x) * torch.randn_like(x)).sum().backward()
    zeros = [p for n, p in block.named_parameters() if n.endswith("weight") and not p.any()]
    assert zeros
    assert all(p.grad.any() for p in zeros)


@pytest.mark.parametrize(
    ("norm", "subsample", "training"),
    [("BN", 1, True), ("BN", 2, False), ("GN", 2, True), ("", 1, True)],
)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_empty_batch(form, order, norm, subsample, training, path, monkeypatch):
    take(monkeypatch, order)
    block = make(pairwise=form, norm=norm, subsample=subsample).train(training)
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    x = torch.zeros(0, 32, 6, 5, requires_grad=True)
    z = block(x)
    assert z.shape == x.shape
    z.sum().backward()
    assert x.grad.shape == x.shape
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    for name, buffer in block.named_buffers():
        if name.startswith("norm.running"):
            assert torch.equal(buffer, before[name])


@pytest.mark.parametrize(
    ("norm", "dims"),
    [("BN", 1), ("BN", 2), ("BN", 3), ("SyncBN", 2), ("nnSyncBN", 3), ("FrozenBN", 1), ("", 3)],
)
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_eval_norms_match_formula(form, norm, dims):
    """Folded into W_z; values, gradients, and the state dict stays as it is."""
    block = make(64, pairwise=form, norm=norm, dims=dims).eval()
    before = copy.deepcopy(block.state_dict())
    assert_is_the_formula(block, torch.randn(2, 64, *SPATIAL[dims]))
    for name, value in block.state_dict().items():
        assert torch.equal(value, before[name])


CLIP = (2, 32, 6, 5, 3)
ALL = slice(None)
PARTS = {  # the inputs that a block in 3-D takes one by one, for each of its `axes` and `frames`
    "space": ({"axes": "space"}, [(slice(t, t + 1), ALL, ALL) for t in range(6)]),
    "time": (
        {"axes": "time"},
        [(ALL, slice(h, h + 1), slice(w, w + 1)) for h in range(5) for w in range(3)],
    ),
    "groups": ({"frames": 2}, [(slice(t, t + 2), ALL, ALL) for t in range(0, 6, 2)]),
    "groups in time": (
        {"axes": "time", "frames": 3},
        [
            (slice(t, t + 3), slice(h, h + 1), slice(w, w + 1))
            for t in (0, 3)
            for h in range(5)
            for w in range(3)
        ],
    ),
    "groups of everything": ({"frames": 6}, [(ALL, ALL, ALL)]),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_axes_and_frames_match_formula_per_part(form, order, name, path, monkeypatch):
    """In float64, values and gradients; with a norm's statistics at rest, which are no part's."""
    take(monkeypatch, order)
    options, parts = PARTS[name]
    block = make(pairwise=form, dims=3, norm="BN", **options).eval()
    x, grad = torch.randn(CLIP, requires_grad=True), torch.randn(CLIP)
    exact, exact_x = copy.deepcopy(block).double(), x.detach().double().requires_grad_()
    exact.subsample = 1 if "time" in name else exact.subsample
    expected = torch.empty(CLIP, dtype=torch.float64)
    for part in parts:
        expected[(..., *part)] = formula(exact, exact_x[(..., *part)])
    z = block(x)
    assert (z - expected).norm() <= 1e-5 * expected.norm()
    leaves, exact_leaves = [x, *block.parameters()], [exact_x, *exact.parameters()]
    grads = torch.autograd.grad(z, leaves, grad)
    exact_grads = torch.autograd.grad(expected, exact_leaves, grad.double())
    least = 1e-2 * max(e.norm() for e in exact_grads)
    for got, want in zip(grads, exact_grads, strict=True):
        assert (got - want).norm() <= 1e-4 * max(want.norm(), least)


@pytest.mark.parametrize("norm", ["BN", "GN"])
@pytest.mark.parametrize("name", PARTS)
def test_norm_scope_with_axes_and_frames(name, norm):
    options, parts = PARTS[name]
    block = make(dims=3, norm=norm, **options)
    bare, twin = copy.deepcopy(block), nn.BatchNorm3d(32) if norm == "BN" else block.norm
    del bare.norm
    x = torch.randn(CLIP)
    y, expected = bare(x) - x, torch.empty(CLIP)
    if norm == "BN":
        twin.load_state_dict(block.norm.state_dict())
        parts = [(ALL,)]
    for part in parts:
        expected[(..., *part)] = x[(..., *part)] + twin(y[(..., *part)])
    torch.testing.assert_close(block(x), expected, rtol=1e-3, atol=1e-4)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(block.norm.get_buffer(name), buffer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_attention_map_of_axes_and_frames(form, name):
    """Row i of the whole clip has the weights of its part's attention map."""
    options, parts = PARTS[name]
    block = make(pairwise=form, dims=3, **options)
    part_block = NonLocalBlock(32, pairwise=form, dims=3, subsample=1 if "time" in name else 2)
    part_block.load_state_dict(block.state_dict())
    x = torch.randn(CLIP)
    weights = block.attention_map(x)
    rows = torch.arange(x[0, 0].numel()).view(CLIP[2:])
    seen = []
    for part in parts:
        places = rows[part].flatten()
        expected = part_block.attention_map(x[(..., *part)])
        torch.testing.assert_close(weights[:, places], expected, rtol=1e-4, atol=1e-5)
        seen.append(places)
    assert torch.cat(seen).sort().values.equal(rows.flatten())


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operator gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.parametrize("subsample", [1, 2])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_long_clips_make_no_map(form, subsample, monkeypatch):
    """Test both passes, with the fused kernel and without it."""
    monkeypatch.setattr(nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 0)
    block = make(8, pairwise=form, dims=3, subsample=subsample, norm="")
    x = torch.randn(1, 8, 8, 14, 14, requires_grad=True)
    keys = 8 * (14 // subsample) ** 2
    with _Largest() as largest:
        block(x).sum().backward()
    assert largest.elements >= x.numel()
    assert largest.elements < x[0, 0].numel() * keys / 8


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_axes_and_frames_empty_batch_and_identity(form, name):
    block = NonLocalBlock(32, pairwise=form, dims=3, **PARTS[name][0])
    x = torch.randn(CLIP)
    assert torch.equal(block(x), x)
    assert block(x[:0]).shape == x[:0].shape
    assert block.attention_map(x[:0]).shape[:2] == (0, x[0, 0].numel())


@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_names_and_shapes_of_the_weights(form):
    block = NonLocalBlock(32, inter_channels=8, pairwise=form, dims=3, init_std=0.25)
    assert abs(block.g.weight.std() - 0.25) < 0.06  # of 256 values
    shapes = {name: tuple(p.shape) for name, p in block.named_parameters()}
    expected = {"out.weight": (32, 8, 1, 1, 1), "out.bias": (32,), "norm.weight": (32,),
                "norm.bias": (32,)}  # fmt: skip
    for conv in ("g",) if form == "gaussian" else ("g", "theta", "phi"):
        expected |= {f"{conv}.weight": (8, 32, 1, 1, 1), f"{conv}.bias": (8,)}
    if form == "concatenation":
        expected["w_f"] = (16,)
    assert shapes == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pairwise", {"pairwise": "cosine"}),
        ("dims", {"dims": 4}),
        ("subsample", {"subsample": 0}),
        ("inter_channels", {"inter_channels": 0}),
        ("norm", {"norm": "BatchNorm"}),
        ("axes", {"dims": 3, "axes": "spacetimes"}),
        ("dims", {"axes": "time"}),
        ("dims", {"dims": 1, "frames": 4}),
        ("frames", {"dims": 3, "frames": -1}),
        ("init_std", {"init_std": 0.0}),
    ],
)
def test_invalid_arguments_are_refused(name, options):
    with pytest.raises(ValueError, match=name):
        NonLocalBlock(32, **options)


@pytest.mark.parametrize("subsample", [1, 2])
@pytest.mark.parametrize(
    ("dims", "size"), [(1, (7,)), (2, None), (2, (6, 1)), (2, (9, 4)), (3, (4, 3, 5))]
)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_context_and_attention_map_match_formula(
    form, order, dims, size, subsample, path, monkeypatch
):
    """Without a `size` there is no context."""
    take(monkeypatch, order)
    block = make(pairwise=form, dims=dims, subsample=subsample, norm="").double()
    x, context = (
        torch.randn(2, 32, *sides, dtype=torch.float64, requires_grad=True) if sides else None
        for sides in (SPATIAL[dims], size)
    )
    z, expected = block(x, context=context), formula(block, x, context)
    torch.testing.assert_close(z, expected)
    leaves = [x, *([] if context is None else [context]), *block.parameters()]
    weight = torch.randn_like(z)
    for got, want in zip(
        torch.autograd.grad(z, leaves, weight),
        torch.autograd.grad(expected, leaves, weight),
        strict=True,
    ):
        torch.testing.assert_close(got, want)
    weights, x_hat = block.attention_map(x, context=context), block._pool(x, context)
    assert weights.shape == (2, x[0, 0].numel(), x_hat[0, 0].numel())
    y = (weights @ channels_at(block.g(x_hat))).transpose(1, 2).view(2, -1, *x.shape[2:])
    torch.testing.assert_close(x + block.out(y), z)


@pytest.mark.parametrize(
    ("options", "shape", "context"),
    [
        ({}, CLIP[:4], None),
        ({"frames": 4}, CLIP, None),
        ({"axes": "space"}, CLIP, CLIP),
        ({"axes": "time"}, CLIP, CLIP),
        ({"frames": 2}, CLIP, CLIP),
        ({}, CLIP, CLIP[:4]),
        ({}, CLIP, (1, *CLIP[1:])),
        ({}, CLIP, (2, 16, *CLIP[2:])),
        ({}, CLIP, (*CLIP[:3], 0, 1)),
    ],
    ids=str,
)
def test_invalid_inputs_are_refused(options, shape, context):
    block = make(dims=3, **options)
    for method in (block, block.attention_map):
        with pytest.raises(ValueError):  # noqa: PT011
            method(torch.randn(shape), context=None if context is None else torch.randn(context))


@pytest.mark.parametrize("norm", ["", "FrozenBN", "BN"])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_channels_last_trains_under_autocast(form, norm):
    block = make(pairwise=form, norm=norm).eval()
    x = torch.randn(2, 32, 6, 5, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z = block(x)
    z.sum().backward()
    assert x.grad.isfinite().all()


class Adapter(nn.Module):
    """A convolution with something trained next to it."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        self.extra = nn.Parameter(torch.ones(conv.out_channels))

    def forward(self, x):
        return self.conv(x) + self.extra.view(-1, *[1] * (x.dim() - 2))


def override_forward(block, name):
    conv = getattr(block, name)
    forward = conv.forward
    conv.forward = lambda x: forward(x) + 1


def in_groups(conv):
    return type(conv)(conv.in_channels, conv.out_channels, 1, groups=2)


PUT_ON = {
    "forward hook": lambda block, name: getattr(block, name).register_forward_hook(
        lambda module, inputs, output: output + 1
    ),
    "forward pre-hook": lambda block, name: getattr(block, name).register_forward_pre_hook(
        lambda module, inputs: (inputs[0] + 1,)
    ),
    "adapter": lambda block, name: setattr(block, name, Adapter(getattr(block, name))),
    "spectral norm": lambda block, name: parametrizations.spectral_norm(getattr(block, name)),
    "pruning": lambda block, name: prune.random_unstructured(getattr(block, name), "weight", 0.5),
    "forward": override_forward,
    "groups": lambda block, name: setattr(block, name, in_groups(getattr(block, name))),
}


@pytest.mark.parametrize("what", PUT_ON)
@pytest.mark.parametrize(("form", "name"), [
    (form, name) for form in PAIRWISE_FORMS for name in ("theta", "phi", "g", "out")
    if form != "gaussian" or name in ("g", "out")
])  # fmt: skip
def test_modified_child_layers_take_effect(form, name, what):
    """At sizes with few keys and with many, in two training steps."""
    block = make(32, pairwise=form, norm="").train()
    PUT_ON[what](block, name)
    for size in ((14, 14), (3, 3), (14, 14)):
        x = torch.randn(2, 32, *size)
        block(x)  # spectral norm takes a step of its own in each forward pass
        block.eval()
        theta, phi = (
            (x, block._pool(x))
            if form == "gaussian"
            else (block.theta(x), block.phi(block._pool(x)))
        )
        y = nonlocal_ops.explicit_nonlocal(
            channels_at(theta), channels_at(phi), channels_at(block.g(block._pool(x))),
            pairwise=form, w_f=getattr(block, "w_f", None),
        )  # fmt: skip
        expected = x + block.out(y.transpose(1, 2).view(2, -1, *size))
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)
        block.train()
        block(x).square().mean().backward()
    for parameter in getattr(block, name).parameters():
        assert parameter.grad.any()


@pytest.mark.parametrize("norm", [{"track_running_stats": False}, {"affine": False}], ids=str)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_replaced_norm_takes_effect(form, order, norm, monkeypatch):
    take(monkeypatch, order)
    block, x = make(pairwise=form).eval(), torch.randn(2, 32, 5, 7)
    block.norm = nn.BatchNorm2d(32, **norm).eval()
    bare = copy.deepcopy(block)
    del bare.norm
    torch.testing.assert_close(block(x), x + block.norm(bare(x) - x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_norm_hook_output_is_not_overwritten(form, training):
    block = make(32, pairwise=form).train(training)
    kept = []
    block.norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    x = torch.randn(2, 32, 14, 14)
    with torch.no_grad():
        z = block(x)
    torch.testing.assert_close(kept[0].view_as(x), z - x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["BN", ""])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_identity_at_start_in_float16_of_large_inputs(form, norm):
    block = NonLocalBlock(1024, pairwise=form, norm=norm).half()
    x = (torch.rand(1, 1024, 4, 4) * 100).half()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("path", ["small", "prefix sums"])
@pytest.mark.parametrize("subsample", [1, 2])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_function_transforms(form, subsample, path, monkeypatch):
    if path == "prefix sums":
        monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", 0)
    block = make(8, pairwise=form, subsample=subsample, norm="").double()
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    weights = dict(block.named_parameters())

    def loss(weights, image):
        return functional_call(block, weights, (image.unsqueeze(0),)).square().sum()

    expected = [torch.autograd.grad(loss(weights, image), list(weights.values())) for image in x]
    torch.testing.assert_close(vmap(lambda image: block(image.unsqueeze(0))[0])(x), block(x))
    got = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    for index, name in enumerate(weights):
        torch.testing.assert_close(got[name], torch.stack([e[index] for e in expected]))
    image = x[0].clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(weights, image), image)
    torch.testing.assert_close(grad(loss, argnums=1)(weights, x[0]), want)
    if path == "small":
        tangent = torch.randn_like(x[0])
        _, slope = jvp(lambda image: loss(weights, image), (x[0],), (tangent,))
        torch.testing.assert_close(slope, (want * tangent).sum())
