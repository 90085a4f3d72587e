"""The block's formula on a GPU, in every precision and compiled.

The CPU's tests cover the same formulas; a GPU takes other kernels.
"""

import pytest
import torch
from test_nonlocal_block import assert_is_the_formula, make

from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

# Odd sizes; fused kernels take inner widths in multiples of 8, so not that of 24 channels.
PLACES = {
    "image": ((2, 128, 13, 17), {}),
    "all positions": ((1, 64, 13, 17), {"subsample": 1}),
    "narrow": ((2, 24, 7, 9), {}),
    "clip": ((2, 64, 4, 7, 9), {"dims": 3}),
}
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


@pytest.fixture(autouse=True)
def without_tf32():
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_block_matches_formula(form, place, dtype, compiled):
    shape, options = PLACES[place]
    block = make(shape[1], pairwise=form, norm="", **options).to(DEVICE, dtype)
    with torch.no_grad():
        for weights in block.parameters():
            weights.mul_(0.3)
    if compiled:
        block.compile()
    tolerance = TOLERANCES[dtype]
    assert_is_the_formula(
        block,
        torch.randn(shape, device=DEVICE).mul(0.5).to(dtype),
        tolerance=tolerance,
        gradient_tolerance=10 * tolerance,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("form", PAIRWISE_FORMS)
def test_is_the_identity_at_start_under_autocast(form, dtype):
    x = torch.randn(2, 64, 9, 7, device=DEVICE).to(memory_format=torch.channels_last)
    block = NonLocalBlock(64, pairwise=form).to(DEVICE)
    with torch.autocast(DEVICE, dtype=dtype):
        assert torch.equal(block(x), x)
