"""Fuzz: whatever the input, it works or is refused by name.

``NL_DETECTRON_FUZZ_EXAMPLES=20000 python -m pytest tests/test_properties.py`` looks further.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from dirty import fuzz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import nl_detectron
from nl_detectron.config import check_config, check_detectron2_keys, load_config
from nl_detectron.data.build import DataErrorMapper
from nl_detectron.data.detection_utils import read_image
from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock
from nl_detectron.utils.errors import UserError


def attempted(call: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, str | None]:
    """Return what `call` returns, and the message of the error that a user would be told."""
    try:
        return call(*args, **options), None
    except (UserError, ValueError) as error:
        if call is not NonLocalBlock and not isinstance(error, UserError):
            raise
        return None, str(error)


# Blocks

ARGUMENTS = st.fixed_dictionaries(
    {
        "in_channels": st.sampled_from([1, 2, 3, 8, 32, 64]),
        "inter_channels": st.none() | st.integers(-1, 9),
        "pairwise": st.sampled_from([*PAIRWISE_FORMS, *PAIRWISE_FORMS, "gauss", ""]),
        "subsample": st.integers(-1, 9),
        "norm": st.sampled_from(["BN", "FrozenBN", "nnSyncBN", "GN", "LN", "", "XN"]),
        "scale": st.booleans(),
        "dims": st.sampled_from([1, 2, 2, 2, 3, 0, 4]),
    }
)


@fuzz
@given(
    arguments=ARGUMENTS,
    batch=st.integers(0, 2),
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    training=st.booleans(),
)
def test_fuzz_a_block_is_the_identity_or_refused(
    arguments: dict[str, Any], batch: int, sizes: list[int], training: bool
) -> None:
    block, told = attempted(NonLocalBlock, **arguments)
    if told is not None:
        assert any(name in told for name in arguments), told
        return
    shape = (batch, arguments["in_channels"], *sizes[: arguments["dims"]])
    x = torch.linspace(-3, 3, int(np.prod(shape))).reshape(shape).requires_grad_()
    # A batch norm cannot be trained on fewer than two values, in any model.
    values = x.numel() // arguments["in_channels"]
    block.train(training and values > 1 and arguments["norm"] != "nnSyncBN")
    out = block(x)
    assert torch.equal(out, x)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    out = block(x)
    assert out.shape == x.shape
    assert out.isfinite().all()
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_group_norm_that_does_not_suit_the_width_is_named() -> None:
    with pytest.raises(ValueError, match=r"norm is 'GN', for 8 channels: "):
        NonLocalBlock(8, norm="GN")


# Configs

KEYS = get_cfg()
nl_detectron.add_nonlocal_config(KEYS)


def paths(node: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in node.items():
        found += [(*prefix, key)] if not isinstance(value, dict) else []
        found += paths(value, (*prefix, key)) if isinstance(value, dict) else []
    return found


class Reads:
    """A config that writes down which of its keys are read."""

    def __init__(self, node: CfgNode, read: set[tuple[str, ...]], path: tuple[str, ...] = ()):
        self._node, self._read, self._path = node, read, path

    def __getattr__(self, name: str) -> Any:
        path, value = (*self._path, name), self._node[name]
        if isinstance(value, CfgNode):
            return Reads(value, self._read, path)
        self._read.add(path)
        return value

    __getitem__ = __getattr__


def checked_keys() -> list[tuple[str, ...]]:
    """Return the keys that our checks read, which a value of any type must not break."""
    cfg, read = KEYS.clone(), {("MODEL", "DEVICE")}
    cfg.merge_from_list(
        [
            *("MODEL.BACKBONE.NAME", "build_nonlocal_resnet_backbone"),
            *("MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS", [[], [], [0], []]),
            *("MODEL.KEYPOINT_ON", True),
            *("MODEL.ROI_KEYPOINT_HEAD.NAME", "NonLocalKRCNNConvDeconvUpsampleHead"),
            *("MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS", 2),
        ]
    )
    check_config(Reads(cfg, read))
    check_detectron2_keys(Reads(cfg, read))
    return sorted(read)


ALL_KEYS = sorted(paths(KEYS))
CHECKED_KEYS = checked_keys()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([2**63, -(10**30)])
    | st.floats()
    | st.dates()
    | st.binary(max_size=3)
    | st.sampled_from(["BN", "gaussian", "nan", "(1, 2)", "[[", "{}", "${x}", "\0", "\ud800"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def assert_loaded_or_told(file: Path, opts: list[str] | None = None) -> None:
    cfg, told = attempted(load_config, file, opts or [])
    if told is None:
        assert load_config(file, opts or []) == cfg
    else:
        assert "\n" not in told
        assert len(told.replace(str(file), "")) < 400


def config_file(folder: Path, path: tuple[str, ...], value: Any) -> Path:
    """Write a config with one key."""
    content = value
    for key in reversed(path):
        content = {key: content}
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8", errors="replace")
    return file


@fuzz
@given(path=st.sampled_from(CHECKED_KEYS * 9 + ALL_KEYS), value=VALUES)
def test_fuzz_values_in_a_config_file(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    assert_loaded_or_told(config_file(tmp_path, path, value))


@pytest.mark.parametrize("path", CHECKED_KEYS, ids=".".join)
def test_null_is_allowed_or_refused_by_name(tmp_path: Path, path: tuple[str, ...]) -> None:
    file = config_file(tmp_path, path, None)
    _, told = attempted(load_config, file)
    assert told is None or ".".join(path) in told


def test_checked_keys_are_ours_and_detectron2s() -> None:
    names = {".".join(path) for path in CHECKED_KEYS}
    assert {"MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "SOLVER.MAX_ITER"} < names
    assert {".".join(path) for path in ALL_KEYS if "NON_LOCAL" in path} < names


@fuzz
@given(
    key=st.sampled_from([".".join(path) for path in CHECKED_KEYS]) | st.text(max_size=9),
    value=st.text(max_size=12) | VALUES.map(repr),
)
def test_fuzz_overrides(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("VERSION: 2")
    assert_loaded_or_told(file, [key, value])


WORDS = [
    "MODEL",
    "_BASE_",
    "VERSION",
    ": ",
    "\n",
    "  ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!",
]
WORDS += ["python/object/apply:os.abort []", "c.yaml", "'", "# ", "\t", "2", "<<", "? ", "| ", "%"]


@fuzz
@given(
    content=st.binary(max_size=60) | st.lists(st.sampled_from(WORDS)).map("".join).map(str.encode)
)
def test_fuzz_the_text_of_a_config_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    assert_loaded_or_told(file)


# Images


def encoded(format: str, mode: str) -> bytes:
    colours = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).convert(mode).save(file, format)
    return file.getvalue()


GOOD = [encoded("JPEG", "RGB"), encoded("JPEG", "CMYK"), encoded("PNG", "RGB")]
GOOD += [encoded("PNG", "P"), encoded("GIF", "P"), encoded("BMP", "RGB"), encoded("TIFF", "RGB")]


@st.composite
def spoilt_images(draw: st.DrawFn) -> bytes:
    """A good file, cut off, with bits flipped or with other bytes in places."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    for place, bit in draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), max_size=6)):
        # Half of them in the header, which the rest hangs on.
        data[int(place * (len(data) if bit % 2 else min(len(data), 64)))] ^= 1 << bit
    for place, patch in draw(
        st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), max_size=2)
    ):
        at = int(place * len(data))
        data[at : at + len(patch)] = patch
    return bytes(data[: int(draw(st.sampled_from([1, 1, 0.9, 0.5, 0.1])) * len(data))])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")
@fuzz
@given(content=st.binary(max_size=200) | spoilt_images())
def test_fuzz_images(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    mapper = DataErrorMapper(DatasetMapper(is_train=False, augmentations=[], image_format="BGR"))
    image, told = attempted(read_image, file)
    if told is None:
        assert image.ndim == 3
        assert (image.shape[2], image.dtype) == (3, np.uint8)
    else:
        assert told.startswith(f"{file}: ")
        assert "\n" not in told
    mapped, told_in_training = attempted(mapper, {"file_name": str(file)})
    if told_in_training is not None:
        assert told is not None
        assert str(file) in told_in_training
        assert "\n" not in told_in_training
    elif told is None:
        assert np.array_equal(mapped["image"].numpy().transpose(1, 2, 0), image)
    else:
        assert "more than 8 bits" in told
