"""The block: the paper's equation 6, the identity at start, every shape, folding of the norm."""

import copy
import inspect
import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap
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
    if block.subsample > 1 and block.axes != "time":
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
    if block.norm is not None:
        y = block.norm(y.contiguous().unsqueeze(2))
    return x + y.reshape(x.shape)


def assert_is_the_formula(
    block,
    x,
    grad=None,
    *,
    context=None,
    expected=formula,
    tolerance=1e-5,
    gradient_tolerance=1e-4,
):
    """Compare values and all gradients with those of `expected` in float64."""
    exact = copy.deepcopy(block).double()
    inputs = [value.detach().requires_grad_() for value in (x, context) if value is not None]
    exact_inputs = [value.detach().double().requires_grad_() for value in inputs]
    z, exact_z = block(*inputs), expected(exact, *exact_inputs)
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    assert (z - exact_z).norm() <= tolerance * exact_z.norm()
    grad = torch.randn_like(z) if grad is None else grad
    grads = torch.autograd.grad(z, [*inputs, *block.parameters()], grad)
    exact_leaves = [*exact_inputs, *exact.parameters()]
    exact_grads = torch.autograd.grad(exact_z, exact_leaves, grad.double())
    # Some gradients are zero but for rounding (a bias before a norm): those against the largest.
    least = max(e.norm() for e in exact_grads) * (1e-2 if tolerance <= 1e-5 else 1e-1)
    for got, want in zip(grads, exact_grads, strict=True):
        assert (got.double() - want).norm() <= gradient_tolerance * max(want.norm(), least)


ORDERS = [(form, order) for form in PAIRWISE_FORMS for order in ("positions", "keys")]


def take(monkeypatch, order):
    """Multiply in this order, whatever it costs."""
    monkeypatch.setattr(nonlocal_block, "cheapest_order", lambda orders: order)


OPTIONS = [
    {"subsample": 1, "norm": "BN"},
    {"subsample": 2, "norm": "FrozenBN"},
    {"subsample": 2, "norm": "", "scale": False},
    {"subsample": 3, "norm": "GN"},
]
# Odd sizes, with partial windows, single positions and fewer positions than a window has.
SIZES = [*SPATIAL.values(), (9, 1), (2, 31)]

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
IN_PARTS = [{"dims": 3, **options} for options, _ in PARTS.values()]


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
    ("autocast", "norm", "factor"),
    # A norm's gradients are small differences of large terms.
    [(False, "", 2), (True, "LN", 20), (True, "BN", 20)],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)], ids=str
)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_half_precision(form, order, dtype, tolerance, autocast, norm, factor, path, monkeypatch):
    take(monkeypatch, order)
    block = make(pairwise=form, norm=norm)
    x = torch.randn(2, 32, 5, 7).to(memory_format=torch.channels_last)
    if not autocast:
        block, x = block.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        limit = factor * tolerance
        assert_is_the_formula(block, x, tolerance=tolerance, gradient_tolerance=limit)


@pytest.mark.parametrize("options", [{}, *IN_PARTS], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_is_the_identity_at_start(form, order, norm, options, monkeypatch):
    take(monkeypatch, order)
    block = NonLocalBlock(32, pairwise=form, norm=norm, **options)
    x = torch.randn(CLIP[: 2 + block.dims])
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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options", [{"subsample": 1}, {"norm": "GN"}, {"norm": ""}, *IN_PARTS], ids=str
)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_empty_batch(form, order, options, training, path, monkeypatch):
    take(monkeypatch, order)
    block = make(pairwise=form, **options).train(training)
    before = copy.deepcopy(block.state_dict())
    x = torch.zeros(0, *CLIP[1 : 2 + block.dims], requires_grad=True)
    z = block(x)
    assert z.shape == x.shape
    assert block.attention_map(x).shape[:2] == (0, x.shape[2:].numel())
    z.sum().backward()
    assert x.grad.shape == x.shape
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    assert all(v.equal(before[k]) for k, v in block.state_dict().items() if "running" in k)


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
    assert all(value.equal(before[name]) for name, value in block.state_dict().items())


@pytest.mark.parametrize("norm", ["BN", "GN"])
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("form", "order"), ORDERS)
def test_axes_and_frames_match_formula_per_part(form, order, name, norm, path, monkeypatch):
    """With BN at rest, whose statistics are no part's; GN normalizes each part by itself."""
    take(monkeypatch, order)
    options, parts = PARTS[name]

    def per_part(block, x):
        z = torch.empty_like(x)
        for part in parts:
            z[(..., *part)] = formula(block, x[(..., *part)])
        return z

    # GN has 32 groups: with 32 channels it would normalize over the few positions of one channel.
    block = make(64, pairwise=form, dims=3, norm=norm, **options).eval()
    assert_is_the_formula(block, torch.randn(2, 64, *CLIP[2:]), expected=per_part)


@pytest.mark.parametrize("name", PARTS)
def test_batch_statistics_are_those_of_all_parts(name):
    block = make(dims=3, **PARTS[name][0])
    bare, twin = copy.deepcopy(block), nn.BatchNorm3d(32)
    twin.load_state_dict(block.norm.state_dict())
    bare.norm = None
    x = torch.randn(CLIP)
    torch.testing.assert_close(block(x), x + twin(bare(x) - x), rtol=1e-3, atol=1e-4)
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
    for part in parts:
        places = rows[part].flatten()
        expected = part_block.attention_map(x[(..., *part)])
        torch.testing.assert_close(weights[:, places], expected, rtol=1e-4, atol=1e-5)


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
        torch.randn(2, 32, *sides, dtype=torch.float64) if sides else None
        for sides in (SPATIAL[dims], size)
    )
    assert_is_the_formula(block, x, context=context, tolerance=1e-9, gradient_tolerance=1e-8)
    weights, x_hat = block.attention_map(x, context=context), block._pool(x, context)
    assert weights.shape == (2, x[0, 0].numel(), x_hat[0, 0].numel())
    y = (weights @ channels_at(block.g(x_hat))).transpose(1, 2).view(2, -1, *x.shape[2:])
    torch.testing.assert_close(x + block.out(y), block(x, context))


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
    bare.norm = None
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


@pytest.mark.parametrize("limit", [pair_sum.EXPLICIT_MAX_PER_POSITION, 0])
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_gradients_of_each_image_by_function_transforms(form, limit, monkeypatch):
    monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", limit)
    block = make(8, pairwise=form, norm="").double()
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    weights = dict(block.named_parameters())

    def loss(weights, image):
        return functional_call(block, weights, (image.unsqueeze(0),)).square().sum()

    expected = [torch.autograd.grad(loss(weights, image), list(weights.values())) for image in x]
    got = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    for name, *wanted in zip(weights, *expected, strict=True):
        torch.testing.assert_close(got[name], torch.stack(wanted))


def test_a_form_of_ones_own_is_computed_in_the_papers_order() -> None:
    block = NonLocalBlock(64, subsample=4)
    block.pairwise = "mine"
    assert [*block.orders((1, 64, 8, 8))] == ["positions"]
