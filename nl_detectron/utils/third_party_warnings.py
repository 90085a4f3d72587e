"""Filters of warnings about the code of other packages, which a user cannot change."""

import logging
import os
import re
import sys
import warnings

# Message, category and module. Detectron2 and fvcore are older than these deprecations.
_WARNINGS = (
    ("`torch.jit.script` is deprecated", FutureWarning, "torch.jit._script"),
    ("torch.meshgrid", UserWarning, "torch.functional"),
    ("`broadcast_buffers` is deprecated", FutureWarning, "detectron2.engine.defaults"),
    (
        "Creating a tensor from a list of numpy.ndarrays is extremely slow",
        UserWarning,
        "detectron2.structures.keypoints",
    ),
)
# Messages that torch logs.
_LOGGED = {
    "torch.fx._symbolic_trace": "is_fx_tracing will return true",
    "torch.utils.cpp_extension": "No CUDA runtime is found",
}


def hide_third_party_warnings() -> None:
    """Hide the warnings in this process and in its child processes.

    Filters of ``-W`` or ``PYTHONWARNINGS`` stay unchanged.
    """
    for name in _LOGGED:
        logging.getLogger(name).addFilter(_is_useful)
    if sys.warnoptions:
        return
    for message, category, module in _WARNINGS:
        warnings.filterwarnings("ignore", re.escape(message), category, rf"{re.escape(module)}\Z")
    # For spawned processes and the workers of data loaders.
    os.environ["PYTHONWARNINGS"] = ",".join(
        f"ignore:{message}:{category.__name__}:{module}" for message, category, module in _WARNINGS
    )


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LOGGED[record.name])
