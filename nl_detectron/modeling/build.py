"""Building of a config's model."""

from detectron2 import modeling
from detectron2.config import CfgNode
from torch import nn

from ..config import check_config
from ..utils.errors import ConfigError, UserError, one_line


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model as Detectron2 does; raise ConfigError if its keys do not suit each other."""
    check_config(cfg)
    try:
        return modeling.build_model(cfg)
    except UserError:
        raise
    except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the keys of MODEL do not suit each other: {type(error).__name__}: {one_line(error)}; "
            "--traceback shows which part refuses them"
        ) from error
