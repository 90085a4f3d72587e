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
SMALL = ["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.py"]
SMALL += ["COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.py"]


def yaml_of(config: str) -> str:
    return config.replace(".py", ".yaml")


def test_main_configs_have_lazy_version() -> None:
    names = [f"mask_rcnn_{depth}_FPN{x}_1x" for depth in ("R_50", "R_101") for x in ("", "_NL")]
    names += [
        f"keypoint_rcnn_{depth}_FPN{x}_1x"
        for depth in ("R_50", "R_101")
        for x in ("", "_NL_head", "_NL_head_backbone")
    ]
    assert sorted(Path(config).stem for config in LEAVES) == sorted(names)


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
    lazy, cfg = model_zoo.get_config(config), model_zoo.get_config(yaml_of(config))
    solver = cfg.SOLVER
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy.train.max_iter == solver.MAX_ITER
    loader = lazy.dataloader
    assert (loader.train.dataset.names,) == cfg.DATASETS.TRAIN
    assert (loader.test.dataset.names,) == cfg.DATASETS.TEST
    assert loader.train.total_batch_size == solver.IMS_PER_BATCH
    resize = loader.train.mapper.augmentations[0]
    assert tuple(resize.short_edge_length) == cfg.INPUT.MIN_SIZE_TRAIN
    assert resize.max_size == cfg.INPUT.MAX_SIZE_TRAIN
    assert loader.train.mapper.use_instance_mask == cfg.MODEL.MASK_ON
    assert loader.train.mapper.get("use_keypoint", False) == cfg.MODEL.KEYPOINT_ON
    optimizer = lazy.optimizer
    assert (optimizer.lr, optimizer.momentum) == (solver.BASE_LR, solver.MOMENTUM)
    assert optimizer.weight_decay == solver.WEIGHT_DECAY
    assert optimizer.params.weight_decay_norm == solver.WEIGHT_DECAY_NORM
    multiplier = instantiate(lazy.lr_multiplier)
    for iteration, expected in (
        (0, solver.WARMUP_FACTOR),
        (solver.WARMUP_ITERS, 1.0),
        (solver.STEPS[0] - 1, 1.0),
        (solver.STEPS[0], solver.GAMMA),
        (solver.STEPS[1], solver.GAMMA**2),
        (solver.MAX_ITER - 1, solver.GAMMA**2),
    ):
        assert multiplier(iteration / solver.MAX_ITER) == pytest.approx(expected)


@pytest.mark.parametrize("config", SMALL)
def test_same_output_as_the_yaml_for_the_same_weights(config: str) -> None:
    cfg = model_zoo.get_config(yaml_of(config))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    from_yaml = build_model(cfg).eval()
    for parameter in from_yaml.parameters():
        torch.nn.init.normal_(parameter, std=0.01)  # also the blocks' zeros
    from_py = instantiate(model_zoo.get_config(config).model).eval()
    from_py.load_state_dict(from_yaml.state_dict())

    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(1))
    found = []
    for model in (from_yaml, from_py):
        predictor = model.roi_heads.box_predictor
        assert predictor.test_score_thresh == cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        predictor.test_score_thresh = 0.0  # random scores are all low
        predictor.test_topk_per_image = 10  # a hundred would take a minute
        model.proposal_generator.post_nms_topk[False] = 20
        with torch.no_grad():
            found.append(model([{"image": image.float()}])[0]["instances"].get_fields())
    assert found[0].keys() == found[1].keys()
    assert len(found[0]["scores"]) > 0
    for name, value in found[0].items():
        other = found[1][name]
        if name == "pred_boxes":
            value, other = value.tensor, other.tensor
        assert torch.equal(value, other), name


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
