"""Non-local Neural Networks (CVPR 2018) for Detectron2.

Importing the package registers its backbones, keypoint head, video classifier and datasets.
"""

__version__ = "0.1.0"

import importlib.util
import warnings

if importlib.util.find_spec("detectron2") is None:
    raise ImportError(
        "nl_detectron needs Detectron2, which is not installed and not on PyPI. Run `make setup` "
        "in a checkout of nl_detectron, or follow Detectron2's INSTALL.md."
    )

import torch  # noqa: F401  (its import adds filters, which must not end with the block below)

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    from . import data, modeling  # Detectron2 and fvcore compile functions on import
from .config import add_nonlocal_config, check_config

data.register_all()

__all__ = ["__version__", "add_nonlocal_config", "check_config", "data", "modeling"]
