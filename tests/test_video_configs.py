"""The video configs: each promised name and its meaning. Twins are in test_configs.py."""

import re

import pytest
from detectron2.config import CfgNode
from test_configs import RESIDUAL_BLOCKS, config_of

from nl_detectron.model_zoo import ENTRIES, Entry

PLACES = {
    (50, "5"): [[], [1, 3], [1, 3, 5], []],
    (101, "5"): [[], [1, 3], [6, 13, 20], []],
    (50, "10"): [[], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5], []],
    (101, "10"): [[], [0, 1, 2, 3], [1, 5, 9, 13, 17, 21], []],
    (50, "1"): [[], [], [4], []],
    (101, "1"): [[], [], [21], []],
}
FORMS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
STAGES = ("res2", "res3", "res4", "res5")
NAMES = {
    f"Kinetics/{name}.yaml"
    for name in (
        *(f"{n}_R_{d}_{nl}32x2" for n in ("c2d", "i3d") for d in (50, 101) for nl in ("", "NL5_")),
        *(f"{n}_R_50_{nl}8x8" for n in ("c2d", "i3d") for nl in ("", "NL5_")),
        *(f"i3d_R_50_{nl}{clip}" for clip in ("32x4", "128x1") for nl in ("", "NL5_")),
        *(f"{n}_R_101_{nl}128x1" for n in ("c2d", "i3d") for nl in ("", "NL5_")),
        "c2d_R_50_128x1",
        *(f"c2d_R_50_NL1_{kind}_32x2" for kind in (*FORMS, *STAGES)),
        *(f"c2d_R_{d}_NL{n}_32x2" for d in (50, 101) for n in (1, 10)),
        *(f"c2d_R_{d}_NL5_{axes}_32x2" for d in (50, 101) for axes in ("space", "time")),
        "i3d_3x3x3_R_101_32x2",
    )
} | {f"Charades/i3d_R_101_{nl}128x1.yaml" for nl in ("", "NL5_")}
VIDEOS = [entry for entry in ENTRIES if entry.task == "video"]
WORDS = {  # of a variant, in the entry's blocks
    "gaussian": "Gaussian",
    "dot_product": "dot product",
    "concatenation": "concatenation",
    "space": "space only",
    "time": "time only",
}
NETWORKS = {"c2d": "C2D", "i3d": "I3D", "i3d_3x3x3": "I3D 3x3x3"}


def places(cfg: CfgNode) -> list[list[int]]:
    after = cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS
    counts = RESIDUAL_BLOCKS[cfg.MODEL.RESNETS.DEPTH]
    return [[i % count for i in stage] for stage, count in zip(after, counts, strict=True)]


def test_every_promised_config_is_there() -> None:
    assert {entry.config for entry in VIDEOS} >= NAMES


@pytest.mark.parametrize("entry", VIDEOS, ids=lambda entry: entry.config)
def test_config_and_entry_match_its_name(entry: Entry) -> None:
    name, cfg = entry.config, config_of(entry.config)
    model, clip, options = cfg.MODEL, cfg.INPUT.CLIP, cfg.MODEL.RESNETS.NON_LOCAL
    found = re.fullmatch(
        r"(\w+)/(c2d|i3d|i3d_3x3x3)_R_(\d+)_(?:NL(\d+)_)?(?:([a-z_]+\d?)_)?(\d+)x(\d)\.yaml", name
    )
    assert found
    data, kind, depth, count, variant, frames, stride = found.groups()
    assert {"i3d": "i3d_3x1x1"}.get(kind, kind) == model.VIDEO_RESNET.TEMPORAL
    assert int(depth) == model.RESNETS.DEPTH
    assert (int(frames), int(stride)) == (clip.FRAMES, clip.STRIDE)
    expected = PLACES[int(depth), count] if count else [[], [], [], []]
    if variant in STAGES:
        last = RESIDUAL_BLOCKS[int(depth)][STAGES.index(variant)] - 2
        expected = [[last] if stage == variant else [] for stage in STAGES]
    assert places(cfg) == expected
    assert (variant if variant in FORMS else "embedded_gaussian") == options.PAIRWISE
    assert (variant if variant in ("space", "time") else "spacetime") == options.AXES

    sparse = (clip.FRAMES, clip.STRIDE) in ((8, 8), (32, 4))
    assert (1 if sparse else 2) == model.VIDEO_RESNET.STEM_TIME_STRIDE
    long = clip.FRAMES * clip.STRIDE == 128
    assert ("Affine" if long else "BN") == model.RESNETS.NORM
    assert ("" if long else "BN") == options.NORM
    assert ([0, 4, 0, 0] if "32x4" in name else [0] * 4) == options.GROUP_FRAMES
    assert long != cfg.TEST.PRECISE_BN.ENABLED
    assert model.BACKBONE.FREEZE_AT == 0
    assert model.RESNETS.STRIDE_IN_1X1 is False
    weights = f"output/Kinetics/{kind}_R_{depth}_{'128x1' if data == 'Charades' else '32x2'}/"
    starts = {"50": "detectron2://ImageNetPretrained/torchvision/R-50", "101": "https://download"}
    assert model.WEIGHTS.startswith(weights if long else starts[depth])

    solver = cfg.SOLVER
    batch, iterations, steps = {
        ("Kinetics", False): (64, 400_000, (150_000, 300_000)),
        ("Kinetics", True): (16, 400_000, (150_000, 300_000)),
        ("Charades", True): (8, 200_000, (75_000, 150_000)),
    }[data, long]
    assert (batch, iterations, steps) == (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.STEPS)
    assert pytest.approx(0.01 / 64) == solver.BASE_LR / batch
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.MOMENTUM) == (1e-4, 0, 0.9)
    kinetics = data == "Kinetics"
    assert entry.model == f"{NETWORKS[kind]} R{depth}, {frames}x{stride}"
    assert [metric.name for metric in entry.metrics] == ["video" if kinetics else "actions"]
    words = [word for word in WORDS.values() if entry.blocks.endswith(f", {word}")]
    assert words == ([WORDS[variant]] if variant in WORDS else [])
    assert ("kinetics400_train" if kinetics else "charades_train",) == cfg.DATASETS.TRAIN
    assert ("kinetics400_val" if kinetics else "charades_val",) == cfg.DATASETS.TEST
    head = model.VIDEO_CLASSIFIER
    assert ((400, False) if kinetics else (157, True)) == (head.NUM_CLASSES, head.MULTI_LABEL)
    assert [224 if kinetics else 288] * 2 == cfg.INPUT.CROP.SIZE
    ratio = cfg.INPUT.CROP.SIZE[0] / 224
    assert pytest.approx([256 * ratio, 320 * ratio], abs=0.5) == list(cfg.INPUT.MIN_SIZE_TRAIN)
