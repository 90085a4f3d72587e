"""The LazyConfigs: the same models and recipes as the YAML files of the same names."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from omegaconf import OmegaConf

from nl_detectron import model_zoo
from nl_detectron.config import is_video
from nl_detectron.data.build import build_train_loader
from nl_detectron.modeling import VideoClassifier
from nl_detectron.utils.errors import ConfigError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
LEAVES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("COCO-*/*.py"))


def yaml_of(config: str) -> str:
    return config.replace(".py", ".yaml")


@pytest.mark.parametrize("config", LEAVES)
def test_same_modules_and_state_as_the_yaml(config: str) -> None:
    cfg = model_zoo.get_config(yaml_of(config))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        from_yaml = build_model(cfg)
        from_py = instantiate(model_zoo.get_config(config).model)
    # Printed, a module tells its children in order with kernels, strides, norms and block options.
    assert str(from_py) == str(from_yaml)
    assert {key: value.shape for key, value in from_py.state_dict().items()} == {
        key: value.shape for key, value in from_yaml.state_dict().items()
    }
    assert {name for name, value in from_py.named_parameters() if value.requires_grad} == {
        name for name, value in from_yaml.named_parameters() if value.requires_grad
    }


@pytest.mark.parametrize("config", LEAVES)
def test_same_recipe_as_the_yaml(config: str) -> None:
    """Optimizer, schedule and augmentation are Detectron2's own objects."""
    lazy, cfg = model_zoo.get_config(config), model_zoo.get_config(yaml_of(config))
    loader = lazy.dataloader
    assert (loader.train.dataset.names,) == cfg.DATASETS.TRAIN
    assert (loader.test.dataset.names,) == cfg.DATASETS.TEST
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    images = lazy.train.max_iter * loader.train.total_batch_size
    assert images == cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH


def test_too_many_categories_are_refused() -> None:
    DatasetCatalog.register("two_categories", list)
    MetadataCatalog.get("two_categories").thing_classes = ["crate", "walker"]
    loader = {"_target_": "builtins.dict", "dataset": {"names": "two_categories"}}
    cfg = OmegaConf.create(
        {"model": {"roi_heads": {"num_classes": 1}}, "dataloader": {"train": loader}}
    )
    with pytest.raises(ConfigError, match=r"model.roi_heads.num_classes"):
        build_train_loader(cfg)
    cfg.model.roi_heads.num_classes = 2
    assert build_train_loader(cfg) == {"dataset": {"names": "two_categories"}}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("VideoClassifier", True),
        ("nl_detectron.modeling.VideoClassifier", True),
        (VideoClassifier, True),
        ("detectron2.modeling.GeneralizedRCNN", False),
        (None, False),
    ],
)
def test_is_video_follows_model_class(target: object, expected: bool) -> None:
    model = {} if target is None else {"_target_": target}
    assert is_video(OmegaConf.create({"model": model}, flags={"allow_objects": True})) is expected
