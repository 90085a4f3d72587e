"""The config keys: defaults that change nothing, values and files that are refused by name."""

import argparse
import builtins
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, build_model, build_resnet_backbone

import nl_detectron
from nl_detectron.config import (
    builds_nonlocal_blocks,
    check_detectron2_keys,
    checks,
    load_config,
    load_lazy_config,
)
from nl_detectron.engine import Trainer
from nl_detectron.engine.defaults import prepare
from nl_detectron.utils.errors import UserError

BACKBONE = "MODEL.RESNETS.NON_LOCAL"
HEAD = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL"
OURS = [
    "MODEL.BACKBONE.NAME",
    "build_nonlocal_resnet_fpn_backbone",
    "MODEL.ROI_KEYPOINT_HEAD.NAME",
    "NonLocalKRCNNConvDeconvUpsampleHead",
]


def test_defaults_build_stock_model(fpn_cfg):
    torch.manual_seed(7)
    stock = build_model(fpn_cfg).state_dict()
    fpn_cfg.merge_from_list(OURS)
    torch.manual_seed(7)
    ours = build_model(fpn_cfg).state_dict()
    assert list(stock) == list(ours)
    assert all(torch.equal(stock[key], ours[key]) for key in stock)


def refused(check: Callable, *arguments: object) -> str:
    """Return the message, which is one line of sensible length."""
    with pytest.raises(UserError) as error:
        check(*arguments)
    message = str(error.value)
    assert "\n" not in message
    assert len(message.replace(os.getcwd(), "")) < 350
    return message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [4]]),
        (f"{BACKBONE}.AFTER_BLOCKS", [4, 5, 6, 7]),
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [], ["4"], []]),
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [], [1.0], []]),
        (f"{BACKBONE}.PAIRWISE", "gauss"),
        (f"{BACKBONE}.REDUCTION", 0),
        (f"{BACKBONE}.REDUCTION", None),
        (f"{BACKBONE}.SCALE", None),
        (f"{BACKBONE}.SUBSAMPLE", -1),
        (f"{BACKBONE}.NORM", "XN"),
        (f"{BACKBONE}.INIT_STD", 0.0),
        (f"{BACKBONE}.AXES", "spacetimes"),
        (f"{BACKBONE}.GROUP_FRAMES", [0, 1]),
        (f"{HEAD}.EVERY_CONVS", 9),
        (f"{HEAD}.EVERY_CONVS", -2),
        (f"{HEAD}.EVERY_CONVS", None),
        (f"{HEAD}.PAIRWISE", ""),
        (f"{HEAD}.SUBSAMPLE", 0),
        (f"{HEAD}.NORM", "XN"),
        ("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (8, 0)),
        ("SOLVER.ACCUMULATE_STEPS", 0),
        ("INPUT.CLIP.FRAMES", 0),
        ("TEST.VIEW_POOLING", "median"),
        ("TEST.ATTENTION_SAMPLES", -1),
        ("MODEL.VIDEO_CLASSIFIER.DROPOUT", 1.0),
        ("DATALOADER.MAX_BAD_VIDEOS", 5.0),
    ],
)
def test_invalid_values_are_refused(fpn_cfg, key, value):
    fpn_cfg.merge_from_list([*OURS, key, value])
    message = refused(nl_detectron.check_config, fpn_cfg)
    assert key in message
    assert repr(value) in message


@pytest.mark.parametrize(
    ("key", "value", "others"),
    [
        ("SOLVER.STEPS", (10, 100), ["SOLVER.MAX_ITER", 100]),
        ("SOLVER.STEPS", (20, 10), ["SOLVER.MAX_ITER", 100]),
        ("SOLVER.STEPS", (0, 10), []),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupMultistepLR", []),
        ("SOLVER.WARMUP_METHOD", "lin", []),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "l2", ["SOLVER.CLIP_GRADIENTS.ENABLED", True]),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatSampler", []),
        ("INPUT.CROP.TYPE", "absolut", ["INPUT.CROP.ENABLED", True]),
        ("INPUT.MASK_FORMAT", "rle", ["MODEL.MASK_ON", True]),
        ("INPUT.RANDOM_FLIP", "both", []),
        ("MODEL.KEYPOINT_ON", True, ["TEST.AUG.ENABLED", True]),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "any", []),
    ],
)
def test_invalid_detectron2_values_are_refused(fpn_cfg, key, value, others):
    check_detectron2_keys(fpn_cfg)
    fpn_cfg.merge_from_list([*others, key, value])
    message = refused(check_detectron2_keys, fpn_cfg)
    assert message.startswith(f"{key} ")
    assert str(value) in message


@pytest.mark.parametrize(
    "opts",
    [
        ["SOLVER.MAX_ITER", 100, "SOLVER.STEPS", (10, 300)],  # Detectron2 ignores the second
        ["SOLVER.STEPS", ()],
        ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.STEPS", (9, 9)],
        ["INPUT.CROP.TYPE", "none", "INPUT.MASK_FORMAT", "rle"],  # read by nothing
    ],
)
def test_values_that_detectron2_takes_are_allowed(fpn_cfg, opts):
    fpn_cfg.merge_from_list(opts)
    check_detectron2_keys(fpn_cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256]]),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", 256),
        ("MODEL.FPN.IN_FEATURES", ["res6"]),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"]),
        (f"{HEAD}.REDUCTION", 3),
    ],
)
def test_inconsistent_model_keys_are_refused(fpn_cfg, key, value):
    fpn_cfg.merge_from_list([*OURS, f"{HEAD}.EVERY_CONVS", 2, key, value])
    refused(Trainer.build_model, fpn_cfg)


ASK_BACKBONE = [f"{BACKBONE}.AFTER_BLOCKS", [[], [], [-2], []]]
ASK_HEAD = [f"{HEAD}.EVERY_CONVS", 2]


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        ([*ASK_BACKBONE, "MODEL.BACKBONE.NAME", "build_resnet_backbone"], "AFTER_BLOCKS"),
        ([*ASK_BACKBONE, "MODEL.BACKBONE.NAME", "build_mnasnet_backbone"], "AFTER_BLOCKS"),
        ([*ASK_BACKBONE, *OURS[2:]], "AFTER_BLOCKS"),
        (ASK_HEAD, "EVERY_CONVS"),
        ([*ASK_HEAD, *OURS[:2]], "EVERY_CONVS"),
        ([*ASK_HEAD, *OURS, "MODEL.KEYPOINT_ON", False], "EVERY_CONVS"),
        ([*ASK_HEAD, *OURS, "MODEL.META_ARCHITECTURE", "RetinaNet"], "EVERY_CONVS"),
    ],
)
def test_blocks_that_nothing_builds_are_refused(fpn_cfg, opts, key):
    fpn_cfg.merge_from_list(opts)
    assert key in refused(Trainer.build_model, fpn_cfg)


@pytest.mark.parametrize(
    ("opts", "key"),
    [([*ASK_HEAD, *OURS[:2]], "EVERY_CONVS"), ([*ASK_BACKBONE, *OURS[2:]], "AFTER_BLOCKS")],
)
def test_detectron2_build_model_refuses_unbuilt_blocks(fpn_cfg, opts, key):
    fpn_cfg.merge_from_list(opts)
    assert key in refused(build_model, fpn_cfg)


def test_custom_builder_can_declare_blocks(fpn_cfg, monkeypatch):
    monkeypatch.setattr(checks, "BLOCK_BUILDERS", checks.BLOCK_BUILDERS.copy())

    @builds_nonlocal_blocks
    def build_own_backbone(cfg, input_shape):
        return build_resnet_backbone(cfg, input_shape)

    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_own_backbone", build_own_backbone)
    fpn_cfg.merge_from_list([*ASK_BACKBONE, "MODEL.BACKBONE.NAME", "build_own_backbone"])
    nl_detectron.check_config(fpn_cfg)


# Files. In a message, the config itself is the first file named.

BASES = {
    "plain.yaml": "MODEL: {MASK_ON: True}",
    "more.yaml": "SOLVER: {MAX_ITER: 7}",
    "to_circle.yaml": "_BASE_: circle.yaml",
    "one_value.yaml": "SOLVER: 3",
    "empty.yaml": "",
    "tab.yaml": "MODEL:\n\tMASK_ON: True",
    "code.yaml": "A: !!python/object/apply:os.mkdir [PWNED]",
}


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in BASES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    monkeypatch.chdir(tmp_path)  # where hostile files would leave a trace
    return tmp_path


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("MODEL: {WEIGTHS: x}", "'MODEL.WEIGHTS'"),  # the nearest key
        ("SLOVER: {MAX_ITER: 3}", "'SOLVER'"),
        ("MODEL: {MAX_ITER: 3}", "'SOLVER.MAX_ITER'"),
        ("MODEL: {RESNETS: {NON_LOCAL: {AFTER_BLOCK: []}}}", "NON_LOCAL.AFTER_BLOCKS'"),
        ("MODEL: {ROI_HEADS: {QUANTUM_FLUX: 3}}", "QUANTUM_FLUX"),
        ("SOLVER: {MAX_ITER: many}", "SOLVER.MAX_ITER"),
        ("MODEL: {MASK_ON: 1}", "MODEL.MASK_ON"),
        ("SOLVER: 3", "SOLVER"),
        ("SOLVER: {MAX_ITER: 2020-01-01}", "SOLVER.MAX_ITER"),
        ("SOLVER: {MAX_ITER: 2020-99-99}", "circle.yaml"),  # a day that does not exist
        ("SOLVER: {MAX_ITER: null}", "SOLVER.MAX_ITER"),
        ("SOLVER: {MAX_ITER: 0}", "SOLVER.MAX_ITER"),
        ("SOLVER: {IMS_PER_BATCH: 0}", "SOLVER.IMS_PER_BATCH"),
        ("SOLVER: {BASE_LR: .nan}", "SOLVER.BASE_LR"),
        ("SOLVER: {BASE_LR: -0.1}", "SOLVER.BASE_LR"),
        ("DATALOADER: {NUM_WORKERS: -1}", "DATALOADER.NUM_WORKERS"),
        ("MODEL: {ROI_HEADS: {NUM_CLASSES: 0}}", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("MODEL: {ROI_KEYPOINT_HEAD: {CONV_DIMS: null}}", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"),
        ("INPUT: {MIN_SIZE_TRAIN: []}", "INPUT.MIN_SIZE_TRAIN"),
        ("MODEL: {META_ARCHITECTURE: GeneralisedRCNN}", "'GeneralizedRCNN'"),
        ("MODEL: {BACKBONE: {NAME: build_resnet_fpn_backbne}}", "'build_resnet_fpn_backbone'"),
        ("MODEL: {DEVICE: null}", "MODEL.DEVICE"),
        ("", "circle.yaml"),
        ("- MODEL\n- SOLVER", "circle.yaml"),
        ("1: 2", "circle.yaml"),
        ("? [1, 2]\n: 3", "circle.yaml"),
        ("MODEL:\n\tMASK_ON: True\n", "circle.yaml"),
        (b"MODEL: {WEIGHTS: \xff}", "circle.yaml"),
        ("MODEL: {WEIGHTS: a\0b}", "circle.yaml"),
        ("[" * 1000, "circle.yaml"),
        ("MODEL: &a {RESNETS: *a}", "circle.yaml"),
        ("MODEL: {WEIGHTS: !!python/object/apply:os.mkdir [PWNED]}", "circle.yaml"),
        ("MODEL: {WEIGHTS: !!python/module:os }", "circle.yaml"),
        ("_BASE_: code.yaml", "code.yaml"),
        ("_BASE_: no.yaml", "no.yaml"),
        ("_BASE_: [plain.yaml, no.yaml]", "no.yaml"),
        ("_BASE_: folder.yaml", "folder.yaml"),
        ("_BASE_: detectron2://x.yaml", "x.yaml"),
        ("_BASE_: circle.yaml", "circle.yaml"),
        ("_BASE_: to_circle.yaml", "circle.yaml"),
        ("_BASE_: 3", "circle.yaml"),
        ("_BASE_: [plain.yaml, 3]", "circle.yaml"),
        ("_BASE_: empty.yaml", "circle.yaml"),
        ("_BASE_: tab.yaml", "tab.yaml"),
        ("MODEL: {_BASE_: plain.yaml}", "MODEL._BASE_"),
        ("_BASE_: one_value.yaml\nSOLVER: {GAMMA: 1.0}", "SOLVER"),
    ],
)
def test_invalid_config_file_gives_one_line_error(
    bases: Path, content: str | bytes, named: str
) -> None:
    file = bases / "circle.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert named in refused(load_config, file)
    assert not (bases / "PWNED").exists()


def test_several_bases_are_merged_in_order(bases: Path) -> None:
    (bases / "own.yaml").write_text("_BASE_: [plain.yaml, more.yaml, plain.yaml]")
    cfg = load_config(bases / "own.yaml")
    assert (cfg.MODEL.MASK_ON, cfg.SOLVER.MAX_ITER) == (True, 7)


@pytest.mark.parametrize(
    ("name", "named"),
    [("folder.yaml", "folder.yaml"), ("pipe.yaml", "pipe.yaml"), ("plian.yaml", "plain.yaml")],
)
def test_unreadable_config_path_is_reported(bases: Path, name: str, named: str) -> None:
    assert named in refused(load_config, bases / name)


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["SOLVER.MAX_ITR", "3"], "'SOLVER.MAX_ITER'"),
        (["SOLVER.MAX_ITER"], "SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
        (["SOLVER", "3"], "SOLVER"),
        (["_BASE_", "x.yaml"], "'_BASE_'"),
        (["", "3"], "''"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE"),
    ],
)
def test_invalid_override_gives_one_line_error(bases: Path, opts, named: str) -> None:
    assert named in refused(load_config, bases / "plain.yaml", opts)


LAZY = """
model = dict(depth=50)
optimizer = dict(lr=0.1, params=dict(a=1))
lr_multiplier = dict(a=1)
dataloader = dict(train=dict(a=1), test=dict(a=1), evaluator=dict(a=1))
train = dict(device="cpu", output_dir="o", max_iter=3, amp=dict(enabled=False),
             checkpointer=dict(period=1), eval_period=1, log_period=1)
"""


@pytest.mark.parametrize(
    ("what", "content", "opts", "named"),
    [
        ("a syntax error", "model = (", [], "line 1"),
        ("bytes that are no UTF-8", b"# \xff\n", [], "UnicodeDecodeError"),
        ("a module that is missing", "import no_such_module", [], "no_such_module"),
        ("an import of a file that is missing", "from .no import model", [], "no"),
        ("an error when it runs", "\nmodel = nope", [], "own.py, line 2"),
        ("no model", "train = dict()", [], "'model'"),
        ("a model that is a number", LAZY + "model = 3", [], "'model'"),
        ("a number for a section, in the file", LAZY + "train = 5", [], "'train'"),
        (
            "no checkpoints",
            LAZY + "del train['checkpointer']",
            [],
            "train.checkpointer.period",
        ),
        ("text for a period", LAZY, ["train.eval_period=x"], "train.eval_period"),
        ("no lines of the log", LAZY, ["train.log_period=0"], "train.log_period"),
        ("updates of no batch", LAZY, ["train.accumulate_steps=0"], "train.accumulate_steps"),
        ("no optimizer", "model = dict()", [], "'optimizer'"),
        ("no lr_multiplier", LAZY + "del lr_multiplier", [], "'lr_multiplier'"),
        ("no output_dir", LAZY + "del train['output_dir']", [], "train.output_dir"),
        ("a value that refers to nothing", LAZY, ["train.max_iter=${no}"], "'no'"),
        ("text for a number", LAZY, ["train.max_iter=many"], "train.max_iter"),
        ("no iterations", LAZY, ["train.max_iter=0"], "train.max_iter"),
        ("a misspelt key", LAZY, ["train.max_itr=3"], "train.max_iter'"),
        ("a key of a number", LAZY, ["train.max_iter.x=3"], "train.max_iter.x"),
        ("a key without a value", LAZY, ["train.max_iter"], "train.max_iter"),
        ("a bracket left open", LAZY, ["train.max_iter=[["], "train.max_iter=[["),
        ("a key to delete", LAZY, ["~train.max_iter=3"], "~train.max_iter"),
        ("a number for a section", LAZY, ["train=3"], "'train'"),
        ("a device that does not exist", LAZY, ["train.device=gpu"], "train.device"),
    ],
)
def test_invalid_lazy_config_gives_one_line_error(
    bases: Path, what: str, content: str | bytes, opts: list[str], named: str
) -> None:
    file = bases / "own.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    importing = builtins.__import__
    arguments = argparse.Namespace(config_file=str(file), opts=opts, eval_only=False)
    assert named in refused(prepare, arguments)
    assert builtins.__import__ is importing


def test_complete_lazy_config_is_accepted(bases: Path) -> None:
    (bases / "own.py").write_text(LAZY)
    arguments = argparse.Namespace(
        config_file="own.py", opts=["train.max_iter=5", "optimizer.lr=0.2"], eval_only=False
    )
    cfg = prepare(arguments)
    assert (cfg.train.max_iter, cfg.optimizer.lr) == (5, 0.2)
    assert load_lazy_config("own.py").train.max_iter == 3
