"""Weights from files of any origin: read without running code, with a report of what was loaded."""

import codecs
import logging
import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import _filter_reused_missing_keys, _IncompatibleKeys
from safetensors.torch import load_file

from .errors import UserError

logger = logging.getLogger(__name__)

TRUSTED = "trusted=True"
NEW = "nonlocal"  # in every key that a model has more than the same model without blocks
# Of norms. Absent in old files; torch and Detectron2 then fill them in without a word.
_STATISTICS = ("num_batches_tracked", "running_mean", "running_var")
_LISTED = 5


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer for models with non-local blocks.

    Besides ``.pth`` and ``.pkl`` it reads ``.safetensors``. Names may be Detectron2's, or those of
    Detectron, MSRA and converted torchvision ImageNet files, as Detectron2 matches them. Whatever
    is not mere data in a ``.pth`` or ``.pkl`` is refused, since unpickling could run code; after a
    file's name, ``?trusted=True`` lifts that, for files of people whom you trust.

    Loading ends with a line about what was loaded, what is new, and what of the file is unused.
    An error lists every weight of the model without blocks that should have come from the file and
    did not. A file that has only a backbone is not expected to have the rest.
    """

    _trusted = False

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load as the base class does.

        Raises:
            UserError: the file is missing, cut off, of an unknown kind, or could run code.
        """
        file, _, query = os.fspath(path or "").partition("?")
        options = query.split("&") if query else []
        self._trusted = TRUSTED in options
        rest = "&".join(option for option in options if option != TRUSTED)
        try:
            return super().load(f"{file}?{rest}" if rest else file, *args, **kwargs)
        except (OSError, AssertionError) as error:
            raise UserError(f"cannot read the checkpoint '{path}': {_one_line(error)}") from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 leaves it there after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            if not self._trusted:
                _check_pickle(filename)
            checkpoint = super()._load_file(filename)
        except OSError:
            raise
        except pickle.UnpicklingError as error:
            # torch's message is advice that does not apply here; the reason is in its context.
            reason = _one_line(error.__context__ or error)
            raise UserError(
                f"{filename} is no checkpoint that holds only weights, and reading it could run "
                f"code ({reason}); if you trust who made it: '{filename}?{TRUSTED}'"
            ) from error
        except Exception as error:  # there is nothing that a damaged file cannot raise
            raise UserError(f"cannot read the checkpoint {filename}: {_one_line(error)}") from error
        if not isinstance(checkpoint.get("model"), dict):
            raise UserError(f"{filename} holds no weights: its 'model' is no dictionary")
        return checkpoint

    def _torch_load(self, f: str) -> dict[str, Any]:
        if f.endswith(".safetensors"):
            return load_file(f)
        return torch.load(f, map_location="cpu", weights_only=not self._trusted)

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        try:
            return super()._load_model(checkpoint)
        except ValueError as error:
            raise UserError(
                f"the checkpoint does not suit the model: {_one_line(error)}"
            ) from error

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        missing = set(_filter_reused_missing_keys(self.model, incompatible.missing_keys))
        keys = [k for k in self.model.state_dict() if not k.endswith("num_batches_tracked")]
        weights = [k for k in keys if not k.endswith(_STATISTICS)]
        loaded = [k for k in weights if k not in missing]
        new = [k for k in weights if k in missing and NEW in k]
        lost = [k for k in keys if k in missing and NEW not in k]

        summary = [f"Loaded {len(loaded)} of the model's {len(weights)} weights"]
        summary.append(f"{len(new)} are new in non-local blocks")
        backbone = _backbone_prefix(keys)
        if loaded and all(k.startswith(backbone) for k in loaded):
            elsewhere = [k for k in weights if k in lost and not k.startswith(backbone)]
            summary.append(f"{len(elsewhere)} are new in other parts")
            lost = [k for k in lost if k.startswith(backbone)]
        unused = incompatible.unexpected_keys
        names = ", ".join(unused[:_LISTED]) + (", ..." if len(unused) > _LISTED else "")
        summary.append(f"{len(unused)} in the file are unused" + (f" ({names})" if unused else ""))
        logger.info("; ".join(summary))

        if lost:
            shapes = {
                key: f" has shape {in_file} in the file and {in_model} in the model"
                for key, in_file, in_model in incompatible.incorrect_shapes
            }
            listed = "".join(f"\n  {key}{shapes.get(key, '')}" for key in lost)
            logger.error(f"{len(lost)} weights are not loaded and keep their start values:{listed}")


def _backbone_prefix(keys: list[str]) -> str:
    """What the names of an ImageNet model's weights start with in the detector; "" if it is one."""
    for prefix in ("backbone.bottom_up.", "backbone."):
        if any(key.startswith(prefix) for key in keys):
            return prefix
    return ""


def _check_pickle(filename: str) -> None:
    """Raise UnpicklingError if Detectron2's own unpickling of `filename` could run code."""
    if filename.endswith(".pkl"):
        with PathManager.open(filename, "rb") as file:
            _DataUnpickler(file, encoding="latin1").load()
    elif filename.endswith(".pyth"):
        torch.load(filename, map_location="cpu", weights_only=True)


# As numpy's own pickles name them; `_core` was `core` before numpy 2.
_DATA = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
}


class _DataUnpickler(pickle.Unpickler):
    """Makes numpy arrays and built-in containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = _DATA.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
