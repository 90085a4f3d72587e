"""The non-local operation, equation 1 of the paper, as pure functions on tensors.

``y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)`` for the four pairwise functions f of section 3.2.
`theta` is (N, P, D), one row for each position i of x; `phi` is (N, M, D) and `g` (N, M, E), one
row for each position j of x̂. In the Gaussian form theta and phi are x and x̂ themselves.
Concatenation takes `w_f` (2D,), or in place of theta and phi their products with it (D = 1).
Results are (N, P, E).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .pair_sum import is_compiled_or_traced, relu_pair_sum

HALF = (torch.float16, torch.bfloat16)
SOFTMAX_FORMS = ("gaussian", "embedded_gaussian")
PAIRWISE_FORMS = (*SOFTMAX_FORMS, "dot_product", "concatenation")

# On a CPU, maps of at most this many elements N P M (128 MB in float32) are multiplied out: up to
# there the plain product is faster than the fused kernel in training. The kernel needs equal
# widths. Where g has to be padded, the product is faster up to twice as many elements.
EXPLICIT_MAX_ELEMENTS = 2**25


def pairwise_weights(
    theta: Tensor,
    phi: Tensor,
    *,
    pairwise: str,
    scale: bool = True,
    w_f: Tensor | None = None,
) -> Tensor:
    """Compute the map ``f(x_i, x_j) / C(x)``, (N, P, M), in float32 or wider.

    | form | f | C |
    |---|---|---|
    | gaussian, embedded_gaussian | ``exp(s theta_i . phi_j)`` | ``sum_j f`` |
    | dot_product | ``theta_i . phi_j`` | M |
    | concatenation | ``ReLU(w_f . [theta_i, phi_j])`` | M |

    with ``s = 1/sqrt(D)`` if `scale`, as in the official code, else 1, as in the paper.

    Raises:
        ValueError: for another form, or in concatenation a `w_f` of another shape than (2D,), or
            none with D > 1. The other forms ignore it.
    """
    check_pairwise(pairwise)
    if pairwise == "concatenation":
        a, b = _concatenation_scalars(theta, phi, w_f)
        return torch.relu(a.unsqueeze(2) + b.unsqueeze(1)) / phi.shape[1]
    with torch.autocast(theta.device.type, enabled=False):
        products = at_least_float32(theta) @ at_least_float32(phi).transpose(1, 2)
    if pairwise == "dot_product":
        return products / phi.shape[1]
    return torch.softmax(products * theta.shape[2] ** -0.5 if scale else products, dim=-1)


def explicit_nonlocal(theta: Tensor, phi: Tensor, g: Tensor, **form) -> Tensor:
    """Compute equation 1 with the map in memory, the reference for all other methods.

    `form` is that of `pairwise_weights`.
    """
    weights = pairwise_weights(theta, phi, **form)
    with torch.autocast(theta.device.type, enabled=False):
        return (weights @ at_least_float32(g)).to(g.dtype)


def nonlocal_operation(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    pairwise: str,
    scale: bool = True,
    w_f: Tensor | None = None,
) -> Tensor:
    """Compute equation 1 by the method that suits form and sizes.

    Raises:
        ValueError: as `pairwise_weights` does.
    """
    check_pairwise(pairwise)
    if pairwise == "dot_product":
        return dot_product(theta, phi, g)
    if pairwise == "concatenation":
        a, b = _concatenation_scalars(theta, phi, w_f)
        # ReLU(a + b) / M, divided first: sums over thousands of keys would not fit half precision.
        return relu_pair_sum(a / phi.shape[1], b / phi.shape[1], g)
    return softmax_attention(theta, phi, g, scale=scale)


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, *, scale: bool = True) -> Tensor:
    """Compute ``y = softmax(s theta phi^T) g``, with exponentials in float32 or wider.

    Small maps on a CPU are multiplied out. All other cases use torch's fused attention, which as a
    rule builds no map and is differentiable once: large maps, GPUs, half precision, compiled or
    traced. g is no wider than theta.
    """
    factor = theta.shape[2] ** -0.5 if scale else 1.0
    device, padding = theta.device.type, max(theta.shape[2] - g.shape[2], 0)
    elements = theta.shape[0] * theta.shape[1] * phi.shape[1]
    small = elements <= EXPLICIT_MAX_ELEMENTS * (2 if padding else 1)
    if device == "cpu" and not is_compiled_or_traced() and is_full_precision(theta) and small:
        return _multiply_out(theta, phi * factor, g, softmax=True)
    # One head per image. The kernels need contiguous rows; without them torch builds the map.
    query, key, value = (rows.unsqueeze(1).contiguous() for rows in (theta, phi, g))
    if device == "cpu":
        # By 0 too: without a padding in the graph, torch's ONNX exporter that traces takes the
        # number of positions as fixed.
        value = F.pad(value, (0, padding))
    y = F.scaled_dot_product_attention(query, key, value, scale=factor)
    return y.squeeze(1)[..., : g.shape[2]]


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Compute ``y = (theta phi^T) g / M``, in the order of multiplication that costs less.

    ``theta (phi^T g)`` takes (P + M) D E multiply-adds, ``(theta phi^T) g`` takes P M (D + E).
    A compiled or exported graph, whose sizes may change, has the first.
    """
    positions, keys, width, out_width = theta.shape[1], *phi.shape[1:], g.shape[2]
    by_sums = (positions + keys) * width * out_width
    by_map = positions * keys * (width + out_width)
    if not is_compiled_or_traced() and by_map <= by_sums:
        return _multiply_out(theta, phi / keys, g, softmax=False)
    if is_full_precision(theta):
        sums = (g.mT @ phi) / keys
    else:  # divide in the float32 accumulator, before the sums could overflow half precision
        sums = torch.baddbmm(g.new_zeros(()), g.mT, phi, beta=0, alpha=1 / keys)
    return (sums @ theta.mT).mT


def product_map(theta: Tensor, phi: Tensor, *, softmax: bool, bias: Tensor | None = None) -> Tensor:
    """Return (N, M, P): at [j, i] is ``theta_i . phi_j + bias_j``, or its softmax over j.

    `bias` is (N, M, 1).
    """
    # On a CPU long rows can be twice as fast as short ones; a transposed softmax would copy.
    has_few_keys = phi.shape[1] < theta.shape[1]
    products = phi @ theta.mT if has_few_keys else theta @ phi.mT
    if bias is not None:
        products = products + (bias if has_few_keys else bias.mT)
    if softmax:
        products = products.softmax(1 if has_few_keys else 2)
    return products if has_few_keys else products.mT


def _multiply_out(theta: Tensor, phi: Tensor, g: Tensor, *, softmax: bool) -> Tensor:
    # Transposed, as (N, E, P), the result suits a convolution without a copy.
    return (g.mT @ product_map(theta, phi, softmax=softmax)).mT


def _concatenation_scalars(theta: Tensor, phi: Tensor, w_f: Tensor | None) -> tuple[Tensor, Tensor]:
    width = theta.shape[2]
    if w_f is None and width == 1:
        return at_least_float32(theta).squeeze(2), at_least_float32(phi).squeeze(2)
    if w_f is None or w_f.shape != (2 * width,):
        got = None if w_f is None else tuple(w_f.shape)
        raise ValueError(f"w_f must have shape ({2 * width},) for concatenation, got {got}")
    theta, phi = at_least_float32(theta), at_least_float32(phi)
    w_f = w_f.to(theta.dtype)
    with torch.autocast(theta.device.type, enabled=False):
        return theta @ w_f[:width], phi @ w_f[width:]


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32 if its type is narrower."""
    return x.float() if x.dtype in HALF else x


def is_full_precision(x: Tensor) -> bool:
    """Return True if products with x run in float32 or wider."""
    return x.dtype not in HALF and not torch.is_autocast_enabled(x.device.type)


def check_pairwise(pairwise: str) -> None:
    """Raise ValueError unless `pairwise` is one of the paper's four forms."""
    if pairwise not in PAIRWISE_FORMS:
        raise ValueError(f"pairwise must be one of {', '.join(PAIRWISE_FORMS)}, got '{pairwise}'")
