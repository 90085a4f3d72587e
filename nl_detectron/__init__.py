"""Non-local Neural Networks (CVPR 2018) for Detectron2.

Importing the package registers its backbones, keypoint head and embedded data set.
"""

import importlib.util
import warnings

if importlib.util.find_spec("detectron2") is None:
    raise ImportError(
        "nl_detectron extends Detectron2, which is not installed and not on PyPI. Run `make setup` "
        "in a checkout of nl_detectron, or install it by Detectron2's own guide (its INSTALL.md)."
    )

with warnings.catch_warnings():
    # fvcore, which Detectron2 imports, compiles its losses on import.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    from . import data, modeling
from .config import add_nonlocal_config, check_config
from .version import __version__

data.register_all()

__all__ = ["__version__", "add_nonlocal_config", "check_config", "data", "modeling"]
