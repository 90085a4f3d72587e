"""Detectron2's architectures with blocks: each is built and trains a step."""

from importlib.resources import files

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from torch import nn

import nl_detectron
from nl_detectron import model_zoo
from nl_detectron.config import NonLocalOptions, check_detectron2_keys
from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import add_backbone_blocks

THEIRS = files("detectron2").joinpath("model_zoo", "configs")
RETINANET = "COCO-Detection/retinanet_R_50_FPN_NL_1x.yaml"
ARCHITECTURES = {
    "C4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "DC5": "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml",
    "Panoptic FPN": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    "Cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "RetinaNet": RETINANET,
}


def small(architecture: str) -> CfgNode:
    if architecture == "RetinaNet":
        cfg = model_zoo.get_config(RETINANET)
    else:
        cfg = get_cfg()
        nl_detectron.add_nonlocal_config(cfg)
        cfg.merge_from_file(str(THEIRS.joinpath(*ARCHITECTURES[architecture].split("/"))))
        cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME.replace("build_", "build_nonlocal_")
        cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    cfg.merge_from_list([
        *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "BN"),
        *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
        *("MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.FPN.OUT_CHANNELS", 8),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", 8, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8),
        *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 8, "MODEL.SEM_SEG_HEAD.NORM", ""),
        *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 20),
    ])  # fmt: skip
    return cfg


def sample() -> dict:
    truth = Instances(
        (64, 96),
        gt_boxes=Boxes(torch.tensor([[4.0, 6, 60, 58], [20, 10, 90, 44]])),
        gt_classes=torch.tensor([0, 1]),
        gt_masks=BitMasks(torch.rand(2, 64, 96) > 0.5),
    )
    return {
        "image": torch.rand(3, 64, 96) * 255,
        "instances": truth,
        "sem_seg": torch.randint(0, 3, (64, 96)),
    }


def blocks_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, NonLocalBlock)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_step_updates_block(architecture: str) -> None:
    cfg = small(architecture)
    check_detectron2_keys(cfg)
    model = build_model(cfg)
    (name,) = blocks_of(model)
    block = model.get_submodule(name)
    at_zero = [weight for weight in block.parameters() if not weight.any()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with EventStorage():
        losses = model.train()([sample(), sample()])
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert any(weight.any() for weight in at_zero)


def lazy_model(name: str):
    return LazyConfig.load(str(THEIRS.joinpath("common", "models", name)), "model")


@pytest.mark.parametrize(
    "name",
    ["mask_rcnn_fpn.py", "mask_rcnn_c4.py", "retinanet.py"],
)
def test_blocks_go_into_detectron2s_lazy_configs(name: str) -> None:
    with torch.device("meta"):
        stock = instantiate(lazy_model(name))
        model = lazy_model(name)
        assert add_backbone_blocks(model) is model
        node = model.backbone.get("bottom_up", model.backbone)
        node.freeze_at = 2  # the ResNet's keys stay where they were
        node.blocks.options.pairwise = "dot_product"
        ours = instantiate(model)
    (block,) = blocks_of(ours)
    assert block.endswith("res4.nonlocal_after_4")
    assert ours.get_submodule(block).pairwise == "dot_product"
    kept = {k: v.shape for k, v in ours.state_dict().items() if "nonlocal" not in k}
    assert kept == {k: v.shape for k, v in stock.state_dict().items()}


def test_a_lazy_config_with_blocks_is_saved_and_read(tmp_path) -> None:
    options = NonLocalOptions(norm="")
    cfg = OmegaConf.create({}, flags={"allow_objects": True})
    cfg.model = add_backbone_blocks(lazy_model("mask_rcnn_fpn.py"), options=options)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    with torch.device("meta"):
        assert blocks_of(instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).model))


def test_blocks_go_into_a_built_model(fpn_cfg: CfgNode) -> None:
    model = build_model(fpn_cfg).double().eval()
    assert add_backbone_blocks(model, after_blocks=[[0], [], [-2], []]) is model
    names = ["backbone.bottom_up.res2.nonlocal_after_0", "backbone.bottom_up.res4.nonlocal_after_0"]
    assert blocks_of(model) == names
    frozen, block = map(model.get_submodule, names)
    assert block.g.weight.dtype == torch.float64
    assert not block.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with pytest.raises(ValueError, match="without non-local blocks"):
        add_backbone_blocks(model)
    with pytest.raises(ValueError, match="Linear"):
        add_backbone_blocks(nn.Linear(2, 2))
