"""Detectron2's checkpointer, for files of any origin and runs that are killed."""

import json
import os
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import _IncompatibleKeys
from safetensors import safe_open
from safetensors.torch import load_file

from ..utils.errors import UserError
from .c2_model_loading import read_pickle
from .inflate import adapt, takes_clips
from .reading import TRUSTED, check_weights, first_sentence, unreadable
from .report import report
from .writing import AtomicPathManager

METADATA = "dataset_metadata"
"""Key of a checkpoint for names and category ids of the classes, see `data.catalog`."""


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer for models with non-local blocks.

    Besides ``.pth`` and ``.pkl`` it reads ``.safetensors``. Names may be Detectron2's, or those of
    Detectron, MSRA and converted torchvision ImageNet files, as Detectron2 matches them. A video
    network inflates all of these and torchvision's own files, and reads the official Caffe2 files.
    Content of a ``.pth`` or ``.pkl`` other than plain data is refused, since unpickling could run
    code. ``?trusted=True`` after the file's name allows it, for files that you trust.

    Loading logs one line with the counts of loaded, new and unused weights. An error lists each
    weight of the model without blocks that the file should have and does not have. A file that has
    only a backbone is not expected to have the rest.

    A saved file has the classes of `metadata` next to the weights, and `load` returns them.

    A local file is written under a temporary name and renamed, so a process that ends early leaves
    the earlier file intact.
    """

    _trusted = False
    _path = ""
    path_manager: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path_manager = AtomicPathManager(self.path_manager)
        self.metadata: dict[str, Any] = {}

    def save(self, name: str, **kwargs: Any) -> None:
        """Save as the base class does.

        Raises:
            UserError: weights are not finite, so that `load` would refuse the file; the disk
                is full, or the file cannot be written for another such reason.
        """
        file = os.path.join(self.save_dir, f"{name}.pth")
        weights = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        # torch.isfinite lacks some narrow types; float32 needs no copy.
        finite = torch.stack([value.float().isfinite().all() for value in weights.values()])
        bad = [name for name, good in zip(weights, finite.tolist(), strict=True) if not good]
        if bad:
            raise UserError(
                f"{file} is not written: {len(bad)} weights have NaN or infinite values (the first "
                f"is {bad[0]}); training has diverged: try a lower SOLVER.BASE_LR"
            )
        try:
            super().save(name, **{METADATA: self.metadata}, **kwargs)
        except OSError as error:
            last = self.get_checkpoint_file() or "the beginning"
            raise UserError(
                f"cannot write the checkpoint {file}: {error.strerror or first_sentence(error)}; "
                f"solve this, then --resume continues from {last}"
            ) from error

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load as the base class does.

        Raises:
            UserError: the file is missing, truncated, of an unknown kind, or could run code; or it
                has no weight of the model, or other content that the model, optimizer or trainer
                does not take.
        """
        file, _, query = os.fspath(path or "").partition("?")
        options = query.split("&")
        self._trusted = TRUSTED in options
        self._path = file
        rest = "&".join(option for option in options if option != TRUSTED)
        try:
            return super().load(f"{file}?{rest}" if rest else file, *args, **kwargs)
        except UserError:
            raise
        except Exception as error:  # content of unknown origin can raise anything
            hint = ""
            if "://" in file:
                hint = '; give MODEL.WEIGHTS the path of a local copy, or "" for random weights'
            raise UserError(
                f"cannot load the checkpoint '{path}': {first_sentence(error)}{hint}"
            ) from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 does not reset it after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            if filename.endswith(".pkl"):
                checkpoint = read_pickle(filename, trusted=self._trusted)
            elif filename.endswith(".pyth"):  # of pycls
                weights = self._torch_load(filename)["model_state"]
                checkpoint = {"model": weights, "matching_heuristics": True}
            else:
                checkpoint = super()._load_file(filename)
        except OSError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise unreadable(filename, error) from error
        check_weights(filename, checkpoint.get("model"))
        return checkpoint

    def _torch_load(self, f: str) -> dict[str, Any]:
        if f.endswith(".safetensors"):
            with safe_open(f, "pt") as file:
                note = (file.metadata() or {}).get(METADATA, "{}")
            return {"model": load_file(f), METADATA: json.loads(note)}
        return torch.load(f, map_location="cpu", weights_only=not self._trusted)

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        state = self.model.state_dict()
        if takes_clips(state):
            adapt(checkpoint, state)
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        report(self._path, self.model, incompatible)
