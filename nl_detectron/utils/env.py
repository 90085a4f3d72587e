"""Setup for scripts without this package, such as Detectron2's own ``tools/train_net.py``:

    DETECTRON2_ENV_MODULE=nl_detectron.utils.env python train_net.py --config-file ...

Detectron2 imports the named module, and with it this package, which registers everything. It then
calls `setup_environment`. Only this package's commands use ``SOLVER.ACCUMULATE_STEPS``, and
``DATASETS.REGISTER``, which `data.register_datasets` registers.
"""

from typing import Any

from detectron2.config import CfgNode, defaults

from ..config import add_nonlocal_config, check_config


class CheckedConfig(CfgNode):
    """A config that `check_config` checks when a script freezes it."""

    def freeze(self) -> None:
        check_config(self)
        super().freeze()

    # Sections are plain nodes, as merging two configs requires equal types.
    @classmethod
    def _create_config_tree_from_dict(cls, dic: dict[str, Any], key_list: list[str]) -> Any:
        return CfgNode._create_config_tree_from_dict(dic, key_list)

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        return CfgNode._decode_cfg_value(value)


def setup_environment() -> None:
    """Add this package's keys to Detectron2's defaults, so that every ``get_cfg()`` has them.

    ``get_cfg()`` then returns a `CheckedConfig`.
    """
    defaults._C = CheckedConfig(defaults._C)
    add_nonlocal_config(defaults._C)
