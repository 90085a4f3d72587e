"""Reading of checkpoints of any origin, without running code, and checks of their weights."""

import codecs
import pickle
import re
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

from ..utils.errors import UserError

TRUSTED = "trusted=True"


class _Dtype:
    """Stand-in for `numpy.dtype`, for numbers only."""

    def __init__(self, code: str, *_: bool) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise pickle.UnpicklingError(f"an array of {code!r} is not of numbers")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        # Other flags make numpy interpret numbers as addresses.
        if state[0] != 3 or state[1] not in set("<>|=") or state[2:] != (*[None] * 3, -1, -1, 0):
            raise pickle.UnpicklingError("an array with a type that numpy does not write")
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stand-in for `numpy.ndarray`, which trusts its content and could crash."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        self.content = _from_buffer(data, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(
    data: bytes, dtype: _Dtype, shape: tuple[int, ...] = (), order: Any = "C"
) -> np.ndarray:
    return np.frombuffer(data, dtype.numpy).reshape(shape, order=order).copy(order)


# As numpy's own pickles name them; `_core` was `core` before numpy 2.
_DATA = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): object(),
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): lambda dtype, data: _from_buffer(data, dtype),
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}


class DataUnpickler(pickle.Unpickler):
    """Unpickler of numpy arrays of numbers and built-in containers that runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        found = _DATA.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for the global {module}.{name}")
        return found

    def load(self) -> Any:
        return _with_arrays(super().load())


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_arrays(inside) for name, inside in value.items()}
    return value.content if isinstance(value, _Array) else value


def unreadable(filename: str, error: Exception) -> UserError:
    """Return the exception for `error`, which the content of `filename` caused."""
    reason = first_sentence(error)
    if isinstance(error, pickle.UnpicklingError):
        # torch's message is advice that does not apply here; the reason is in its context.
        reason = first_sentence(error.__context__ or error)
        if re.search("global|function", reason, re.IGNORECASE):
            return UserError(
                f"{filename} holds more than weights; reading it could run code ({reason}); "
                f"if you trust its source, pass '{filename}?{TRUSTED}'"
            )
    return UserError(
        f"cannot read the checkpoint '{filename}': the file is damaged or is not a checkpoint "
        f"({reason}); copy or download it again, or for --resume write the name of an earlier one "
        "into last_checkpoint"
    )


def check_weights(filename: str, weights: Any) -> None:
    """Raise UserError unless `weights` are tensors or arrays by name."""
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor | np.ndarray)
        for name, value in weights.items()
    ):
        raise UserError(
            f"{filename} holds no weights: its 'model' is not a mapping of names to tensors"
        )


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of the error, without torch's advice after it."""
    sentence = " ".join(str(error).split()).partition(". ")[0]
    return sentence.rstrip(".")[:300] or type(error).__name__
