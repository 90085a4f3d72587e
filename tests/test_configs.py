"""The YAML configs: each builds, matches its name, and differs from its baseline in blocks."""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from documentation import leaves
from torch import nn

import nl_detectron
from nl_detectron import model_zoo
from nl_detectron.config import load_config
from nl_detectron.model_zoo import ENTRIES, Entry

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
LEAVES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.rglob("*.yaml")
    if not path.name.startswith("Base-") and path.parent.name != "experiments"
)
TWINS = [entry for entry in ENTRIES if entry.baseline]
DETECTORS = [entry for entry in ENTRIES if entry.task != "video"]
MAIN = "COCO-InstanceSegmentation/mask_rcnn_{}_FPN_NL_1x.yaml"
RESIDUAL_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def difference(a: CfgNode, b: CfgNode) -> dict[str, tuple[Any, Any]]:
    one, other = leaves(a), leaves(b)
    assert one.keys() == other.keys()
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}


def build(cfg: CfgNode) -> nn.Module:
    """The model on the meta device: without its memory and without its initialization."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


@cache
def config_of(name: str) -> CfgNode:
    """Return a config that no test may change."""
    return model_zoo.get_config(name)


def state_dict_shapes(config: str) -> dict[str, torch.Size]:
    model = build(model_zoo.get_config(config))
    return {key: value.shape for key, value in model.state_dict().items()}


def blocks_by_place(entry: Entry) -> dict[str, int]:
    """Return the counts that an entry of the zoo tells in words."""
    found = re.findall(r"(\d+) in (res\d|the keypoint head)", entry.blocks)
    return {place: int(count) for count, place in found}


def test_every_promised_config_is_there() -> None:
    mask, keypoints = "COCO-InstanceSegmentation/mask_rcnn_", "COCO-Keypoints/keypoint_rcnn_"
    promised = {f"{mask}X_152_32x8d_FPN_{kind}1.44x.yaml" for kind in ("", "NL_")}
    for kind in ("", "NL_"):
        promised |= {f"{mask}R_{d}_FPN_{kind}{n}x.yaml" for d in (50, 101) for n in (1, 3)}
        promised |= {f"COCO-Detection/faster_rcnn_R_{d}_FPN_{kind}1x.yaml" for d in (50, 101)}
        promised.add(f"COCO-Detection/retinanet_R_50_FPN_{kind}1x.yaml")
    for kind in ("", "NL_head_", "NL_head_backbone_"):
        promised |= {f"{keypoints}R_{d}_FPN_{kind}1x.yaml" for d in (50, 101)}
    promised |= {name.replace("_1x", "_s1x") for name in promised if "head_backbone" in name}
    assert promised <= {*LEAVES}


def test_the_quickstart_evaluates_boxes_masks_and_keypoints() -> None:
    cfg = config_of("quickstart.yaml")
    assert (cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON) == (True, True)
    assert cfg.DATASETS.TEST == ("nl_shapes_val",)


@pytest.mark.parametrize("config", LEAVES)
def test_config_is_valid_and_matches_zoo_blocks(config: str) -> None:
    cfg = config_of(config)
    load_config(config)
    after = cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS
    for indices, count in zip(after, RESIDUAL_BLOCKS[cfg.MODEL.RESNETS.DEPTH], strict=True):
        assert all(-count <= index < count for index in indices)
    assert not any(after[: max(cfg.MODEL.BACKBONE.FREEZE_AT - 1, 0)]), "it would stay the identity"
    head = cfg.MODEL.ROI_KEYPOINT_HEAD
    every = head.NON_LOCAL.EVERY_CONVS
    asked = {f"res{number}": len(indices) for number, indices in enumerate(after, 2)}
    asked["the keypoint head"] = len(head.CONV_DIMS) // every if every else 0
    entry = model_zoo.find_entry(config)
    if entry is not None:
        assert blocks_by_place(entry) == {place: count for place, count in asked.items() if count}


@pytest.mark.parametrize(
    "config",
    [
        "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_NL_1.44x.yaml",
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.yaml",
        "COCO-Detection/faster_rcnn_R_50_FPN_NL_1x.yaml",
        "COCO-Detection/retinanet_R_50_FPN_NL_1x.yaml",
        "Ablations/mask_rcnn_R_101_FPN_NL_10_blocks_1x.yaml",
        "Ablations/mask_rcnn_R_50_FPN_NL_SyncBN_1x.yaml",
        "Kinetics/i3d_R_50_NL5_32x4.yaml",
        "Kinetics/c2d_R_101_NL10_32x2.yaml",
    ],
)
def test_a_config_builds_its_baseline_and_the_blocks(config: str) -> None:
    entry = model_zoo.find_entry(config)
    shapes = state_dict_shapes(config)
    kept = {key: shape for key, shape in shapes.items() if "nonlocal" not in key}
    assert kept == state_dict_shapes(entry.baseline)
    outs = [key for key in shapes if "nonlocal" in key and key.endswith("out.weight")]
    assert len(outs) == sum(blocks_by_place(entry).values())


@pytest.mark.parametrize("entry", TWINS, ids=lambda entry: entry.config)
def test_config_differs_from_baseline_only_in_blocks(entry: Entry) -> None:
    changed = difference(config_of(entry.config), config_of(entry.baseline))
    parts = set()
    for key in changed:
        match = re.fullmatch(
            r"MODEL\.(BACKBONE\.NAME|RESNETS\.NON_LOCAL\.\w+"
            r"|ROI_KEYPOINT_HEAD\.NAME|ROI_KEYPOINT_HEAD\.NON_LOCAL\.\w+)",
            key,
        )
        assert match, key
        parts.add("head" if "KEYPOINT" in key else "backbone")
    assert ("backbone" in parts) == ("in res" in entry.blocks)
    assert ("head" in parts) == ("in the keypoint head" in entry.blocks)


@pytest.mark.parametrize(
    ("ablation", "key", "value"),
    [
        ("R_50_FPN_NL_gaussian_1x", "PAIRWISE", "gaussian"),
        ("R_50_FPN_NL_dot_product_1x", "PAIRWISE", "dot_product"),
        ("R_50_FPN_NL_concatenation_1x", "PAIRWISE", "concatenation"),
        ("R_50_FPN_NL_res3_1x", "AFTER_BLOCKS", [[], [-2], [], []]),
        ("R_50_FPN_NL_res5_1x", "AFTER_BLOCKS", [[], [], [], [-2]]),
        ("R_50_FPN_NL_5_blocks_1x", "AFTER_BLOCKS", [[], [1, 3], [1, 3, 5], []]),
        ("R_50_FPN_NL_10_blocks_1x", "AFTER_BLOCKS", [[], [*range(4)], [*range(6)], []]),
        ("R_101_FPN_NL_5_blocks_1x", "AFTER_BLOCKS", [[], [1, 3], [6, 13, 20], []]),
        (
            "R_101_FPN_NL_10_blocks_1x",
            "AFTER_BLOCKS",
            [[], [*range(4)], [1, 5, 9, 13, 17, 21], []],
        ),
        ("R_50_FPN_NL_no_subsampling_1x", "SUBSAMPLE", 1),
        ("R_50_FPN_NL_BN_1x", "NORM", "BN"),
        ("R_50_FPN_NL_SyncBN_1x", "NORM", "SyncBN"),
        ("R_50_FPN_NL_GN_1x", "NORM", "GN"),
    ],
)
def test_an_ablation_changes_one_thing(ablation: str, key: str, value: Any) -> None:
    main = config_of(MAIN.format(ablation.split("_FPN")[0]))
    changed = difference(config_of(f"Ablations/mask_rcnn_{ablation}.yaml"), main)
    assert {name: new for name, (new, _) in changed.items()} == {
        f"MODEL.RESNETS.NON_LOCAL.{key}": value
    }


@pytest.mark.parametrize(
    ("config", "block"),
    [
        (MAIN.format("R_50"), 4),
        (MAIN.format("R_101"), 21),
        ("COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_NL_1.44x.yaml", 34),
        ("COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_backbone_1x.yaml", 21),
        ("COCO-Detection/faster_rcnn_R_101_FPN_NL_1x.yaml", 21),
    ],
)
def test_block_precedes_last_residual_block_of_res4(config: str, block: int) -> None:
    cfg = config_of(config)
    in_stage = RESIDUAL_BLOCKS[cfg.MODEL.RESNETS.DEPTH][2]
    assert [
        [index % in_stage for index in stage] for stage in cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS
    ] == [[], [], [block], []]
    assert block == in_stage - 2


@pytest.mark.parametrize("entry", DETECTORS, ids=lambda entry: entry.config)
def test_config_and_weights_match_its_name(entry: Entry) -> None:
    cfg = config_of(entry.config)
    model, solver = cfg.MODEL, cfg.SOLVER
    assert (entry.task == "mask", entry.task == "keypoint") == (model.MASK_ON, model.KEYPOINT_ON)
    names = {"keypoint": "keypoints_coco_2017"}.get(entry.task, "coco_2017")
    assert (f"{names}_train",) == cfg.DATASETS.TRAIN
    assert (f"{names}_val",) == cfg.DATASETS.TEST

    images, one_x = solver.MAX_ITER * solver.IMS_PER_BATCH, 90_000 * 16
    times = {"1x": 1, "s1x": 130 / 90, "1.44x": 1.444, "3x": 3}[entry.schedule]
    assert images / one_x == pytest.approx(times, abs=1e-3)
    rate = 0.01 if model.META_ARCHITECTURE == "RetinaNet" else 0.02
    assert pytest.approx(rate / 16) == solver.BASE_LR / solver.IMS_PER_BATCH
    assert [step // 1000 for step in (*solver.STEPS, solver.MAX_ITER)] in (
        [60, 80, 90],
        [100, 120, 130],
        [200, 240, 260],
        [210, 250, 270],
    )

    resnets = model.RESNETS
    name, depth, groups, width, stride_in_1x1 = {
        "R50": ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", 50, 1, 64, True),
        "R101": ("detectron2://ImageNetPretrained/MSRA/R-101.pkl", 101, 1, 64, True),
        "X152": ("catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k", 152, 32, 8, False),
    }[entry.model.split()[-1].split("-")[0]]
    assert (name, depth) == (model.WEIGHTS, resnets.DEPTH)
    assert (groups, width) == (resnets.NUM_GROUPS, resnets.WIDTH_PER_GROUP)
    assert stride_in_1x1 == resnets.STRIDE_IN_1X1
    # All three were trained on BGR in 0..255, their deviation folded into the first convolution,
    # and their norms have to stay frozen.
    assert model.PIXEL_MEAN == [103.53, 116.28, 123.675]
    assert model.PIXEL_STD == [1.0, 1.0, 1.0]
    assert resnets.NORM == "FrozenBN"


@pytest.mark.parametrize(
    "config",
    [
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
        "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    ],
)
def test_baseline_equals_detectron2_config(config: str) -> None:
    theirs = get_cfg()
    nl_detectron.add_nonlocal_config(theirs)
    theirs.merge_from_file(
        str(files("detectron2").joinpath("model_zoo", "configs", *config.split("/")))
    )
    changed = difference(config_of(config), theirs)
    if not theirs.MODEL.MASK_ON:  # then nobody reads the mask head's keys
        changed = {key: value for key, value in changed.items() if "ROI_MASK_HEAD" not in key}
    assert changed == {}


def files_read(path: Path) -> set[Path]:
    """The files that a YAML config consists of: itself, its bases, and theirs."""
    bases = yaml.safe_load(path.read_text(encoding="utf-8")).get("_BASE_", [])
    names = [bases] if isinstance(bases, str) else bases
    return {path}.union(*(files_read((path.parent / name).resolve()) for name in names))


def test_configs_are_read_in_at_most_three_files() -> None:
    assert [path for path in CONFIGS.rglob("*.yaml") if len(files_read(path)) > 3] == []


DEEP = [name for name in LEAVES if "R_101" in name and name.replace("R_101", "R_50") in LEAVES]


@pytest.mark.parametrize("config", DEEP)
def test_r50_and_r101_differ_in_depth_weights_and_blocks(config: str) -> None:
    changed = difference(config_of(config), config_of(config.replace("R_101", "R_50"))).keys()
    places = "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS"
    assert changed - {places} == {"MODEL.RESNETS.DEPTH", "MODEL.WEIGHTS"}


OTHER_VALUES = {
    "AFTER_BLOCKS": [[], [0, 1], [], []],
    "EVERY_CONVS": 4,
    "PAIRWISE": "gaussian",
    "REDUCTION": 4,
    "SUBSAMPLE": 1,
    "NORM": "GN",
    "SCALE": False,
    "INIT_STD": 0.1,
    "AXES": "time",
    "GROUP_FRAMES": [0, 2, 0, 0],
}


@pytest.mark.parametrize("key", [key for key in leaves(config_of(LEAVES[0])) if "NON_LOCAL" in key])
def test_every_key_of_a_block_changes_the_model(key: str) -> None:
    is_of_clips = key.endswith(("AXES", "GROUP_FRAMES"))
    name = "quickstart_video.yaml" if is_of_clips else "quickstart.yaml"
    cfg = model_zoo.get_config(name)
    before = str(build(cfg))
    cfg.merge_from_list([key, OTHER_VALUES[key.rsplit(".", 1)[1]]])
    assert str(build(cfg)) != before
