"""Damaged, hostile and wrong checkpoints: refused in one line, or finite weights come out."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from dirty import fuzz_with
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.utils.errors import UserError

# torch's about odd pickles and about tracing.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)
SUFFIXES = (".pth", ".pkl", ".safetensors")


def small_model() -> nn.Module:
    torch.manual_seed(0)
    parts = {"conv": nn.Conv2d(3, 2, 1), "norm": nn.BatchNorm2d(2), "fc": nn.Linear(2, 2)}
    return nn.Sequential(OrderedDict(parts))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def encode(state: dict[str, Tensor], suffix: str) -> bytes:
    """`state` as a checkpoint of the kind that `suffix` stands for."""
    if suffix == ".safetensors":
        return safetensors.torch.save(state)
    if suffix == ".pkl":
        arrays = {key: value.numpy() for key, value in state.items()}
        return pickle.dumps({"model": arrays, "__author__": "nobody"})
    file = io.BytesIO()
    torch.save({"model_state" if suffix == ".pyth" else "model": state}, file)
    return file.getvalue()


def refusal(path: Path | str) -> str:
    """Return the one line with which `path` is refused; "" if finite weights came out of it."""
    model = small_model()
    before = state_of(model)
    refused = ""
    try:
        Checkpointer(model).load(str(path))
    except UserError as error:
        refused = str(error) or "no reason"
    after = model.state_dict()
    if refused:
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert "\n" not in refused
    return refused


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_cut_off_anywhere_are_refused(tmp_path, suffix) -> None:
    state = {key: value for key, value in state_of(small_model()).items() if "fc" in key}
    content = encode(state, suffix)
    path = tmp_path / f"model{suffix}"
    for length in [*range(0, len(content), 29), len(content) - 1]:
        path.write_bytes(content[:length])
        assert path.name in refusal(path), length
    assert "last_checkpoint" in refusal(path)  # where --resume finds an earlier one
    path.write_bytes(content)
    assert refusal(path) == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_corrupted_bytes_load_or_are_refused(tmp_path, suffix) -> None:
    content = encode(state_of(small_model()), suffix)
    path = tmp_path / f"model{suffix}"
    seen = set()

    @fuzz_with(40)
    @given(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1))
    def change(changes: list[tuple[int, int]]) -> None:
        changed = bytearray(content)
        for position, byte in changes:
            changed[position] = byte
        path.write_bytes(changed)
        seen.add(refusal(path) == "")

    change()
    assert False in seen  # most changes are refused


class Call:
    """An object whose unpickling calls `function`."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.call


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth"])
def test_code_in_a_pickle_is_not_run(tmp_path, suffix) -> None:
    target = tmp_path / "attacked"
    hostile = Call(os.system, f"touch '{target}'")
    path = tmp_path / f"model{suffix}"
    weights = {"fc.weight": torch.zeros(2, 2)}
    key = "model_state" if suffix == ".pyth" else "model"
    content = {key: weights, "__author__": "nobody", "trainer": hostile}
    if suffix == ".pkl":
        content["model"] = {key: value.numpy() for key, value in weights.items()}
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    assert f"{path}?trusted=True" in refusal(path)
    assert not target.exists()
    Checkpointer(small_model()).load(f"{path}?trusted=True")
    assert target.exists()


def test_flags_that_make_numpy_crash_are_refused(tmp_path) -> None:
    """With these numpy takes the numbers of an array for addresses of objects."""
    content = encode(state_of(small_model()), ".pkl")
    good, bad = (pickle.dumps(np.dtype("f4")).partition(b"K\x00t")[1], b"K\x3ft")
    assert good in content
    path = tmp_path / "model.pkl"
    path.write_bytes(content.replace(good, bad))
    assert str(path) in refusal(path)


def save(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 167337731\n"
PAGE = b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n"
WRONG: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a missing .pth": ("m.pth", lambda path: None),
    "a missing .safetensors": ("m.safetensors", lambda path: None),
    "a directory": ("m.pth", Path.mkdir),
    "a .pth of zeros": ("m.pth", write(bytes(1000))),
    "a .pkl of zeros": ("m.pkl", write(bytes(1000))),
    "a .safetensors with a header of exabytes": ("m.safetensors", write(b"\xff" * 8 + b"{}")),
    "a web page named .pth": ("m.pth", write(PAGE)),
    "a web page named .pkl": ("m.pkl", write(PAGE)),
    "a pointer of Git LFS": ("m.pth", write(LFS)),
    "a .pkl named .safetensors": ("m.safetensors", write(encode(state_of(small_model()), ".pkl"))),
    "a .safetensors named .pth": ("m.pth", write(encode(state_of(small_model()), ".safetensors"))),
    "a whole model instead of its weights": ("m.pth", save(small_model())),
    "a TorchScript file": (
        "m.pth",
        lambda path: torch.jit.trace(small_model(), torch.zeros(1, 3, 2, 2)).save(path),
    ),
    "a file without any weight": ("m.pth", save({})),
    "weights of another network": ("m.pth", save({"layer1.0.conv1.weight": torch.zeros(1)})),
    "several sets of weights": (
        "m.pth",
        save({"state_dict": state_of(small_model()), "ema": state_of(small_model())}),
    ),
    "'model' is a number": ("m.pth", save({"model": 3})),
    "'model' is a list": ("m.pth", save({"model": [torch.zeros(1)]})),
    "'model' has numbers as names": ("m.pth", save({"model": {1: torch.zeros(1)}})),
    "'model' has text as weights": ("m.pth", save({"model": {"a": "b"}})),
    "the file is a list": ("m.pth", save([torch.zeros(1)])),
    "the file is one tensor": ("m.pth", save(torch.zeros(1))),
    "a .pkl with an array of objects": (
        "m.pkl",
        write(pickle.dumps({"model": {"a": np.array([None])}, "__author__": "nobody"})),
    ),
    "a .pkl with an array shorter than its shape": (
        "m.pkl",
        write(pickle.dumps({"model": {"a": np.zeros(259)}}).replace(b"M\x03\x01", b"M\x04\x01")),
    ),
    "sparse weights": ("m.pth", save({"fc.weight": torch.eye(2).to_sparse()})),
    "weights without values": ("m.pth", save({"fc.weight": torch.eye(2, device="meta")})),
    "all shapes differ": ("m.pth", save({k: torch.zeros(7) for k in state_of(small_model())})),
    "an unknown option after the name": (
        "m.pth?option=1",
        lambda path: torch.save(state_of(small_model()), path.with_name("m.pth")),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_refused(tmp_path, what) -> None:
    name, make = WRONG[what]
    make(tmp_path / name)
    assert str(tmp_path / name) in refusal(tmp_path / name)


def test_download_failure_mentions_model_weights() -> None:
    said = refusal("http://127.0.0.1:9/none.pth")
    assert "127.0.0.1:9/none.pth" in said
    assert "MODEL.WEIGHTS" in said
