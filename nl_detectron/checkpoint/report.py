"""Report on loading: loaded, new, missing and unused weights."""

import logging
import re

from fvcore.common.checkpoint import _filter_reused_missing_keys, _IncompatibleKeys
from torch import nn

from ..utils.errors import UserError

logger = logging.getLogger(__name__)

NEW = "nonlocal"  # in every key that the blocks add to a model
# Buffers of norms. Old files lack them; torch and Detectron2 then fill them in without a message.
_STATISTICS = ("num_batches_tracked", "running_mean", "running_var")
_LISTED = 5


def report(path: str, model: nn.Module, incompatible: _IncompatibleKeys) -> None:
    """Log the weights that were loaded from `path` into `model`; as an error those that were not.

    Raises:
        UserError: no weight was loaded.
    """
    shapes = {
        key: f"{key} has shape {in_file} in the file and {in_model} in the model"
        for key, in_file, in_model in incompatible.incorrect_shapes
    }
    # Detectron2's frozen norms do not report these buffers as missing.
    missing = {*_filter_reused_missing_keys(model, incompatible.missing_keys), *shapes}
    keys = [k for k in model.state_dict() if not k.endswith("num_batches_tracked")]
    weights = [k for k in keys if not k.endswith(_STATISTICS)]
    loaded = [k for k in weights if k not in missing]
    in_file = {_block(k) for k in (*loaded, *shapes)}  # blocks with weights in the file
    new = [k for k in weights if NEW in k and _block(k) not in in_file]
    lost = [k for k in keys if k in missing and (NEW not in k or _block(k) in in_file)]
    unused = incompatible.unexpected_keys

    names = ", ".join(unused[:_LISTED]) + (", ..." if len(unused) > _LISTED else "")
    others = f"{len(unused)} in the file are unused" + (f" ({names})" if unused else "")
    if not loaded:
        raise UserError(
            f"{path} is from another network: it has none of the model's {len(weights)} weights in "
            f"their shapes; {others}"
        )

    summary = [f"Loaded {len(loaded)} of the model's {len(weights)} weights"]
    summary.append(f"{len(new)} are new in non-local blocks")
    backbone = _backbone_prefix(keys)
    if all(k.startswith(backbone) for k in loaded):
        elsewhere = [k for k in weights if k in lost and not k.startswith(backbone)]
        summary.append(f"{len(elsewhere)} are new in other parts")
        lost = [k for k in lost if k.startswith(backbone)]
    summary.append(others)
    logger.info("; ".join(summary))

    if lost:
        listed = "".join(f"\n  {shapes.get(key, key)}" for key in lost)
        logger.error(
            f"{len(lost)} weights are missing in the file or have another shape; they keep their "
            f"initial values:{listed}"
        )


def _block(key: str) -> str:
    """Return the non-local block that the weight belongs to; "" if none."""
    match = re.match(rf".*?{NEW}[^.]*", key)
    return match[0] if match else ""


def _backbone_prefix(keys: list[str]) -> str:
    """Return the prefix of the backbone's weights in a detector; "" for an ImageNet model."""
    for prefix in ("backbone.bottom_up.", "backbone."):
        if any(key.startswith(prefix) for key in keys):
            return prefix
    return ""
