"""The non-local operation, equation 1 of the paper, as pure functions on tensors.

``y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)`` for the four pairwise functions f of section 3.2.
Everywhere `theta` is (N, P, D), one row for each position i of x; `phi` is (N, M, D) and `g`
(N, M, E), one row for each position j of the (subsampled) x; `w_f` is (2D,). The Gaussian form
takes x itself for theta and phi. Results are (N, P, E).
"""

import torch
from torch import Tensor

from .attention import softmax_attention
from .relu_sum import relu_pair_sum

HALF = (torch.float16, torch.bfloat16)
SOFTMAX_FORMS = ("gaussian", "embedded_gaussian")
PAIRWISE_FORMS = (*SOFTMAX_FORMS, "dot_product", "concatenation")


def pairwise_weights(
    theta: Tensor,
    phi: Tensor,
    *,
    pairwise: str,
    scale: bool = True,
    w_f: Tensor | None = None,
) -> Tensor:
    """The explicit map ``f(x_i, x_j) / C(x)``, (N, P, M), in float32 or wider.

    | form | f | C |
    |---|---|---|
    | gaussian, embedded_gaussian | ``exp(s theta_i . phi_j)`` | ``sum_j f`` |
    | dot_product | ``theta_i . phi_j`` | M |
    | concatenation | ``ReLU(w_f . [theta_i, phi_j])`` | M |

    with ``s = 1/sqrt(D)`` if `scale`, else 1. This is the formula as the paper has it: the
    reference of the tests, and what `NonLocalBlock.attention_map` shows.
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
    """Equation 1 with the map in memory; `form` is that of `pairwise_weights`."""
    return (pairwise_weights(theta, phi, **form) @ at_least_float32(g)).to(g.dtype)


def nonlocal_operation(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    pairwise: str,
    scale: bool = True,
    w_f: Tensor | None = None,
) -> Tensor:
    """Equation 1 by the cheapest exact way for its form; raises ValueError for another form."""
    check_pairwise(pairwise)
    if pairwise == "dot_product":
        return dot_product(theta, phi, g)
    if pairwise == "concatenation":
        return concatenation(theta, phi, g, w_f)
    return softmax_attention(theta, phi, g, scale=scale)


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """``y = (theta phi^T) g / M``, in the order of multiplication that costs less.

    ``theta (phi^T g)`` takes (P + M) D E multiply-adds, ``(theta phi^T) g`` takes P M (D + E).
    A compiled or exported graph, whose sizes may change, has the first.
    """
    positions, width = theta.shape[1:]
    keys, out_width = g.shape[1:]
    if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        by_map = positions * keys * (width + out_width)
        if by_map < (positions + keys) * width * out_width:
            return dot_product_by_map(theta, phi, g)
    return dot_product_by_sums(theta, phi, g)


# Transposed, as (N, channels, positions), results and gradients suit a convolution as they are.
def dot_product_by_map(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    key_bias: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """``y_i = bias + 1/M sum_j (theta_i . phi_j + key_bias_j) g_j``; key_bias (N, M), bias (E,)."""
    products = product_over(phi.shape[1], phi, theta.transpose(1, 2))
    g_t = g.transpose(1, 2)
    if key_bias is not None:
        products = products + (key_bias / phi.shape[1]).unsqueeze(2)
    if bias is None:
        return (g_t @ products).transpose(1, 2)
    return torch.baddbmm(bias.to(g.dtype).view(1, -1, 1), g_t, products).transpose(1, 2)


def dot_product_by_sums(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """``y_i = theta_i (1/M sum_j phi_j^T g_j)``, without a map."""
    sums = product_over(phi.shape[1], g.transpose(1, 2), phi)
    return (sums @ theta.transpose(1, 2)).transpose(1, 2)


def product_over(count: int, left: Tensor, right: Tensor) -> Tensor:
    """``left right / count``, divided before the sums could overflow half precision."""
    if left.dtype in HALF or torch.is_autocast_enabled(left.device.type):
        # alpha acts on the float32 accumulator; its gradient takes a pass over both factors.
        return torch.baddbmm(left.new_zeros(()), left, right, beta=0, alpha=1 / count)
    return (left @ right) / count


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor | None) -> Tensor:
    """``y_i = 1/M sum_j ReLU(w_f . [theta_i, phi_j]) g_j``, exactly, without a map."""
    a, b = _concatenation_scalars(theta, phi, w_f)
    return concatenation_of_scalars(a, b, g)


def concatenation_of_scalars(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """The concatenation form from ``a_i = w_theta . theta_i`` (N, P), ``b_j = w_phi . phi_j``
    (N, M) and `g` (N, M, E)."""
    # Divide first: a sum over thousands of positions would not fit half precision.
    keys = g.shape[1]
    return relu_pair_sum(a / keys, b / keys, g)


def _concatenation_scalars(theta: Tensor, phi: Tensor, w_f: Tensor | None) -> tuple[Tensor, Tensor]:
    width = theta.shape[2]
    if w_f is None or w_f.shape != (2 * width,):
        raise ValueError(f"concatenation needs w_f of shape ({2 * width},)")
    theta, phi = at_least_float32(theta), at_least_float32(phi)
    w_f = w_f.to(theta.dtype)
    with torch.autocast(theta.device.type, enabled=False):
        return theta @ w_f[:width], phi @ w_f[width:]


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it is of a narrower type."""
    return x.float() if x.dtype in HALF else x


def check_pairwise(pairwise: str) -> None:
    """Raise ValueError unless `pairwise` is one of the paper's four forms."""
    if pairwise not in PAIRWISE_FORMS:
        raise ValueError(f"pairwise is '{pairwise}', not one of {', '.join(PAIRWISE_FORMS)}")
