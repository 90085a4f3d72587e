"""The config keys: defaults that change nothing, values and files that are refused by name."""

import argparse
import builtins
import os
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model, build_resnet_backbone

import nl_detectron
from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.engine.setup import prepare
from nl_detectron.errors import ConfigError, UserError

BACKBONE = "MODEL.RESNETS.NON_LOCAL"
HEAD = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL"
OURS = [
    "MODEL.BACKBONE.NAME",
    "build_nonlocal_resnet_fpn_backbone",
    "MODEL.ROI_KEYPOINT_HEAD.NAME",
    "NonLocalKRCNNConvDeconvUpsampleHead",
]


def test_defaults_are_the_documented_ones():
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    shared = {
        "PAIRWISE": "embedded_gaussian",
        "REDUCTION": 2,
        "SUBSAMPLE": 2,
        "NORM": "BN",
        "SCALE": True,
        "INIT_STD": 0.01,
    }
    assert dict(cfg.MODEL.RESNETS.NON_LOCAL) == {
        "AFTER_BLOCKS": [[], [], [], []],
        **shared,
        "AXES": "spacetime",
        "GROUP_FRAMES": [0, 0, 0, 0],
    }
    assert dict(cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL) == {"EVERY_CONVS": 0, **shared}
    nl_detectron.check_config(cfg)


def test_with_the_defaults_a_model_is_built_as_before(fpn_cfg):
    torch.manual_seed(7)
    stock = build_model(fpn_cfg).state_dict()
    fpn_cfg.merge_from_list(OURS)
    torch.manual_seed(7)
    ours = build_model(fpn_cfg).state_dict()
    assert list(stock) == list(ours)
    assert all(torch.equal(stock[key], ours[key]) for key in stock)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [4]], "4 lists, one each for res2, res3, res4, res5"),
        (f"{BACKBONE}.AFTER_BLOCKS", [4, 5, 6, 7], "4 lists, one each for res2, res3, res4, res5"),
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [], ["4"], []], "whole numbers"),
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [], [1.0], []], "whole numbers"),
        (f"{BACKBONE}.PAIRWISE", "gauss", "gaussian, embedded_gaussian, dot_product, concat"),
        (f"{BACKBONE}.REDUCTION", 0, "1 or more"),
        (f"{BACKBONE}.REDUCTION", None, "1 or more"),
        (f"{BACKBONE}.SCALE", None, "True, False"),
        (f"{BACKBONE}.SUBSAMPLE", -1, "1 or more"),
        (f"{BACKBONE}.NORM", "XN", "not BN, SyncBN"),
        (f"{BACKBONE}.INIT_STD", 0.0, "a number above 0"),
        (f"{HEAD}.EVERY_CONVS", 9, "0 (off) to 8"),
        (f"{HEAD}.EVERY_CONVS", -2, "0 (off) to 8"),
        (f"{HEAD}.EVERY_CONVS", None, "0 (off) to 8"),
        (f"{HEAD}.PAIRWISE", "", "gaussian, embedded_gaussian, dot_product, concat"),
        (f"{HEAD}.SUBSAMPLE", 0, "1 or more"),
        (f"{HEAD}.NORM", "XN", "not BN, SyncBN"),
        ("SOLVER.ACCUMULATE_STEPS", 0, "1 or more"),
    ],
)
def test_impossible_values_are_refused_by_name(fpn_cfg, key, value, allowed):
    fpn_cfg.merge_from_list([*OURS, key, value])
    with pytest.raises(ConfigError) as error:
        nl_detectron.check_config(fpn_cfg)
    assert isinstance(error.value, UserError)
    message = str(error.value)
    assert key in message
    assert allowed in message
    # For a list of lists the stage's own list will do.
    culprits = [value, *value] if isinstance(value, list) else [value]
    assert any(str(culprit) in message for culprit in culprits if culprit != [])


def test_a_width_of_the_head_that_does_not_divide_is_refused(fpn_cfg):
    fpn_cfg.merge_from_list([*OURS, f"{HEAD}.EVERY_CONVS", 2, f"{HEAD}.REDUCTION", 3])
    with pytest.raises(ConfigError, match=rf"{HEAD}\.REDUCTION is 3; allowed: a divisor of each"):
        nl_detectron.check_config(fpn_cfg)


@pytest.mark.parametrize(
    "stock", ["build_resnet_backbone", "build_resnet_fpn_backbone", "build_mnasnet_backbone"]
)
def test_blocks_with_a_backbone_that_does_not_build_them_are_refused(fpn_cfg, stock):
    fpn_cfg.MODEL.BACKBONE.NAME = stock
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    with pytest.raises(ConfigError, match=rf"'{stock}' does not build; allowed: build_nonlocal_"):
        nl_detectron.check_config(fpn_cfg)


def test_blocks_with_a_head_that_does_not_build_them_are_refused(fpn_cfg):
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 2
    with pytest.raises(ConfigError, match=r"does not build; allowed: NonLocalKRCNN"):
        nl_detectron.check_config(fpn_cfg)
    fpn_cfg.merge_from_list([*OURS, "MODEL.KEYPOINT_ON", False])
    with pytest.raises(ConfigError, match=r"MODEL\.KEYPOINT_ON is False"):
        nl_detectron.check_config(fpn_cfg)


def test_either_builder_refuses_what_the_other_part_would_not_build(fpn_cfg):
    fpn_cfg.MODEL.BACKBONE.NAME = "build_nonlocal_resnet_fpn_backbone"
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 2
    with pytest.raises(ConfigError, match="EVERY_CONVS"):
        build_model(fpn_cfg)
    fpn_cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "NonLocalKRCNNConvDeconvUpsampleHead"
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    with pytest.raises(ConfigError, match="AFTER_BLOCKS"):
        build_model(fpn_cfg)


def test_a_users_own_builder_may_say_that_it_builds_blocks(fpn_cfg, monkeypatch):
    def build_own_backbone(cfg, input_shape):
        return build_resnet_backbone(cfg, input_shape)

    build_own_backbone.builds_nonlocal_blocks = True
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_own_backbone", build_own_backbone)
    fpn_cfg.MODEL.BACKBONE.NAME = "build_own_backbone"
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    nl_detectron.check_config(fpn_cfg)


# Files. In a message, the config itself is the first file named.

BASES = {
    "plain.yaml": "MODEL: {MASK_ON: True}",
    "more.yaml": "SOLVER: {MAX_ITER: 7}",
    "to_circle.yaml": "_BASE_: circle.yaml",
    "through_list.yaml": "_BASE_: [plain.yaml, list_circle.yaml]",
    "one_value.yaml": "SOLVER: 3",
    "empty.yaml": "",
    "tab.yaml": "MODEL:\n\tMASK_ON: True",
    "code.yaml": "A: !!python/object/apply:os.mkdir [PWNED]",
}
BOMB = "A: &A [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("ABCDEFG", "BCDEFGH", strict=True)
)


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in BASES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    monkeypatch.chdir(tmp_path)  # where hostile files would leave a trace
    return tmp_path


def told(file: Path, error: BaseException) -> str:
    """Return the message, which is one line of sensible length."""
    message = str(error)
    assert "\n" not in message
    assert len(message.replace(str(file.parent), "")) < 350
    return message


@pytest.mark.parametrize(
    ("what", "content", "message"),
    [
        ("a misspelt key", "MODEL: {WEIGTHS: x}", "'MODEL.WEIGTHS'. Did you mean 'MODEL.WEIGHTS'?"),
        ("a misspelt section", "SLOVER: {MAX_ITER: 3}", "'SLOVER'. Did you mean 'SOLVER'?"),
        ("a key in another section", "MODEL: {MAX_ITER: 3}", "Did you mean 'SOLVER.MAX_ITER'?"),
        (
            "a misspelt key of ours",
            "MODEL: {RESNETS: {NON_LOCAL: {AFTER_BLOCK: []}}}",
            "Did you mean 'MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS'?",
        ),
        (
            "a key of a newer version",
            "MODEL: {ROI_HEADS: {QUANTUM_FLUX: 3}}",
            "It may be of a newer version; this is nl_detectron",
        ),
        ("VERSION of a newer Detectron2", "VERSION: 3", "VERSION is 3; allowed: 0 to 2; this is"),
        ("VERSION as text", "VERSION: '2'", "VERSION is '2'; allowed: 0 to 2"),
        ("text for a number", "SOLVER: {MAX_ITER: many}", "is many (str); allowed: int, such as"),
        ("a number for a switch", "MODEL: {MASK_ON: 1}", "is 1 (int); allowed: bool, such as"),
        ("a number for a section", "SOLVER: 3", "SOLVER cannot be set as a whole"),
        ("keys for a value", "SOLVER: {MAX_ITER: {A: 1}}", "(keys); allowed: int"),
        ("a date for a number", "SOLVER: {MAX_ITER: 2020-01-01}", "is a date, which a config"),
        ("a day that does not exist", "SOLVER: {MAX_ITER: 2020-99-99}", "not valid YAML"),
        ("null for a number", "SOLVER: {MAX_ITER: null}", "MAX_ITER is None; allowed: 1 or more"),
        ("no iterations", "SOLVER: {MAX_ITER: 0}", "MAX_ITER is 0; allowed: 1 or more"),
        ("a batch of no images", "SOLVER: {IMS_PER_BATCH: 0}", "is 0; allowed: 1 or more"),
        ("a checkpoint every 0 iterations", "SOLVER: {CHECKPOINT_PERIOD: 0}", "1 or more"),
        ("a learning rate that is NaN", "SOLVER: {BASE_LR: .nan}", "BASE_LR is nan; allowed: 0"),
        ("a negative learning rate", "SOLVER: {BASE_LR: -0.1}", "BASE_LR is -0.1; allowed: 0"),
        ("-1 worker", "DATALOADER: {NUM_WORKERS: -1}", "NUM_WORKERS is -1; allowed: 0"),
        ("no class", "MODEL: {ROI_HEADS: {NUM_CLASSES: 0}}", "NUM_CLASSES is 0; allowed: 1"),
        (
            "null for a head's widths",
            "MODEL: {ROI_KEYPOINT_HEAD: {CONV_DIMS: null}}",
            "CONV_DIMS is None; allowed: a list of widths",
        ),
        ("no image size", "INPUT: {MIN_SIZE_TRAIN: []}", "MIN_SIZE_TRAIN is empty"),
        ("a ResNet of 51 layers", "MODEL: {RESNETS: {DEPTH: 51}}", "allowed: 18, 34, 50, 101"),
        (
            "a misspelt model",
            "MODEL: {META_ARCHITECTURE: GeneralisedRCNN}",
            "not registered. Did you mean 'GeneralizedRCNN'?",
        ),
        ("no model", "MODEL: {META_ARCHITECTURE: ''}", "is '', which is not registered"),
        ("no backbone", "MODEL: {BACKBONE: {NAME: ''}}", "is '', which is not registered"),
        (
            "a misspelt backbone",
            "MODEL: {BACKBONE: {NAME: build_resnet_fpn_backbne}}",
            "Did you mean 'build_resnet_fpn_backbone'?",
        ),
        ("device null", "MODEL: {DEVICE: null}", "is 'None', which is not a device"),
        ("an empty file", "", "holds nothing; a config has keys"),
        ("only a comment", "# to do\n", "holds nothing; a config has keys"),
        ("a list", "- MODEL\n- SOLVER", "holds a list; a config has keys"),
        ("a sentence", "train for a week", "holds a str; a config has keys"),
        ("a key that is a number", "1: 2", "the key 1 is not text"),
        ("a key that is a list", "? [1, 2]\n: 3", "found unhashable key (line 1)"),
        ("tabs", "MODEL:\n\tMASK_ON: True\n", "not valid YAML: while scanning"),
        ("a file cut off", "MODEL: {MASK_ON: [Tr", "not valid YAML: while parsing"),
        ("bytes that are no UTF-8", b"MODEL: {WEIGHTS: \xff}", "not text in UTF-8 (byte 17)"),
        ("UTF-16", "MODEL: {MASK_ON: True}".encode("utf-16"), "not text in UTF-8 (byte 0)"),
        ("a NUL byte", "MODEL: {WEIGHTS: a\0b}", "not valid YAML: unacceptable character"),
        ("3,000 brackets", "[" * 3000, "nested too deeply"),
        ("aliases that unfold to 43 million values", BOMB, "more than 100000 values"),
        ("an alias in itself", "MODEL: &a {RESNETS: *a}", "more than 100000 values"),
        (
            "Python that runs a command",
            "MODEL: {WEIGHTS: !!python/object/apply:os.mkdir [PWNED]}",
            "python/object/apply:os.mkdir' (line 1); only plain values are read",
        ),
        ("a Python module", "MODEL: {WEIGHTS: !!python/module:os }", "only plain values are read"),
        ("a Python tuple", "MODEL: {WEIGHTS: !!python/tuple [1]}", "only plain values are read"),
        ("an unknown tag", "MODEL: {WEIGHTS: !secret x}", "only plain values are read"),
        ("Python in the _BASE_", "_BASE_: code.yaml", "code.yaml: could not determine"),
        ("a _BASE_ that is missing", "_BASE_: no.yaml", "_BASE_ cannot be read: "),
        ("one of several _BASE_ missing", "_BASE_: [plain.yaml, no.yaml]", "no.yaml (no such"),
        ("a folder as _BASE_", "_BASE_: folder.yaml", "_BASE_ cannot be read: "),
        ("a named pipe as _BASE_", "_BASE_: pipe.yaml", "_BASE_ cannot be read: "),
        ("a _BASE_ of detectron2://", "_BASE_: detectron2://x.yaml", "_BASE_ cannot be read: "),
        ("itself as _BASE_", "_BASE_: circle.yaml", "cycle: circle.yaml -> circle.yaml"),
        (
            "a circle of two files",
            "_BASE_: to_circle.yaml",
            "cycle: circle.yaml -> to_circle.yaml -> circle.yaml",
        ),
        ("a number as _BASE_", "_BASE_: 3", "_BASE_ is 3; allowed: a file's name or a list"),
        ("null as _BASE_", "_BASE_: null", "_BASE_ is None; allowed: a file's name or a list"),
        ("keys as _BASE_", "_BASE_: {a: 1}", "_BASE_ is {'a': 1}; allowed: a file's name"),
        ("a number among _BASE_", "_BASE_: [plain.yaml, 3]", "allowed: a file's name or a list"),
        ("an empty _BASE_ file", "_BASE_: empty.yaml", "empty.yaml: holds nothing"),
        ("tabs in a _BASE_ file", "_BASE_: tab.yaml", "tab.yaml: not valid YAML"),
        ("_BASE_ in a section", "MODEL: {_BASE_: plain.yaml}", "unknown key 'MODEL._BASE_'"),
        ("a section that is a value in _BASE_", "_BASE_: one_value.yaml\nSOLVER: {GAMMA: 1.0}",
         "Cannot inherit key 'SOLVER'"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_config_is_told_in_a_line(
    bases: Path, what: str, content: str | bytes, message: str
) -> None:
    file = bases / "circle.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        load_config(file)
    assert message in told(file, error.value)
    assert not (bases / "PWNED").exists()


def test_a_circle_through_a_list_is_told(bases: Path) -> None:
    (bases / "list_circle.yaml").write_text("_BASE_: [plain.yaml, through_list.yaml]")
    with pytest.raises(UserError, match="cycle"):
        load_config(bases / "list_circle.yaml")


def test_several_bases_are_merged_in_order(bases: Path) -> None:
    (bases / "own.yaml").write_text("_BASE_: [plain.yaml, more.yaml, plain.yaml]")
    cfg = load_config(bases / "own.yaml")
    assert (cfg.MODEL.MASK_ON, cfg.SOLVER.MAX_ITER) == (True, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.yaml", "is a folder"),
        ("pipe.yaml", "no config file"),
        ("plian.yaml", "Did you mean"),
    ],
)
def test_what_is_no_file_is_told(bases: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(bases / name)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.MAX_ITR", "3"], "Did you mean 'SOLVER.MAX_ITER'?"),
        (["SOLVER.MAX_ITER"], "odd length"),
        (["SOLVER.MAX_ITER", "many"], "is many (str); allowed: int"),
        (["SOLVER.MAX_ITER.X", "3"], "unknown key 'SOLVER.MAX_ITER.X'"),
        (["SOLVER", "3"], "SOLVER cannot be set as a whole"),
        (["_BASE_", "x.yaml"], "unknown key '_BASE_'"),
        (["", "3"], "unknown key ''"),
        (["SOLVER.MAX_ITER", "(" * 5000], "... (str); allowed: int"),
        (["MODEL.DEVICE", "gpu"], "'gpu', which is not a device"),
    ],
)
def test_a_wrong_override_is_told_in_a_line(bases: Path, opts, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(bases / "plain.yaml", opts)
    assert message in told(bases, error.value)


def test_text_that_looks_like_code_stays_text(bases: Path) -> None:
    code = "__import__('os').mkdir('PWNED')"
    cfg = load_config(bases / "plain.yaml", ["MODEL.WEIGHTS", code])
    assert code == cfg.MODEL.WEIGHTS
    assert not (bases / "PWNED").exists()


LAZY = """
model = dict(depth=50)
optimizer = dict(lr=0.1, params=dict(a=1))
lr_multiplier = dict(a=1)
dataloader = dict(train=dict(a=1), test=dict(a=1), evaluator=dict(a=1))
train = dict(device="cpu", output_dir="o", max_iter=3, amp=dict(enabled=False),
             checkpointer=dict(period=1), eval_period=1, log_period=1)
"""


@pytest.mark.parametrize(
    ("what", "content", "opts", "message"),
    [
        ("a syntax error", "model = (", [], "'(' was never closed, line 1"),
        ("bytes that are no UTF-8", b"# \xff\n", [], "UnicodeDecodeError"),
        ("a module that is missing", "import no_such_module", [], "line 1: ModuleNotFoundError"),
        ("an import of a file that is missing", "from .no import model", [], "does not exist"),
        ("an error when it runs", "\nmodel = nope", [], "own.py, line 2: NameError: name 'nope'"),
        ("no model", "train = dict()", [], "'model' is missing"),
        ("a model that is a number", LAZY + "model = 3", [], "'model' is missing"),
        ("a number for a section, in the file", LAZY + "train = 5", [], "'train' is missing"),
        (
            "no checkpoints",
            LAZY + "del train['checkpointer']",
            [],
            "checkpointer.period' is missing",
        ),
        ("a number for a schedule", LAZY, ["lr_multiplier=5"], "'lr_multiplier' is 5, but it has"),
        ("a number for a loader", LAZY, ["dataloader.train=5"], "'dataloader.train' is 5, but it"),
        ("text for a period", LAZY, ["train.eval_period=x"], "eval_period is 'x'; allowed: 0 or"),
        ("no lines of the log", LAZY, ["train.log_period=0"], "log_period is 0; allowed: 1"),
        ("updates of no batch", LAZY, ["train.accumulate_steps=0"], "steps is 0; allowed: 1"),
        ("no optimizer", "model = dict()", [], "'optimizer' is missing"),
        ("no lr_multiplier", LAZY + "lr_multiplier = 3", [], "'lr_multiplier' is missing"),
        ("no output_dir", LAZY + "del train['output_dir']", [], "'train.output_dir' is missing"),
        ("a value that refers to nothing", LAZY, ["train.max_iter=${no}"], "'no' not found"),
        ("text for a number", LAZY, ["train.max_iter=many"], "max_iter is 'many'; allowed: 1"),
        ("no iterations", LAZY, ["train.max_iter=0"], "max_iter is 0; allowed: 1"),
        ("a misspelt key", LAZY, ["train.max_itr=3"], "Did you mean 'train.max_iter'?"),
        ("a key of a number", LAZY, ["train.max_iter.x=3"], "is not a config"),
        ("a key without a value", LAZY, ["train.max_iter"], "not of the form key=value"),
        ("a bracket left open", LAZY, ["train.max_iter=[["], "'train.max_iter=[[': "),
        ("a key to delete", LAZY, ["~train.max_iter=3"], "deletion is not yet"),
        ("a number for a section", LAZY, ["train=3"], "'train' is 3, but it has to have keys"),
        ("a device that does not exist", LAZY, ["train.device=gpu"], "which is not a device"),
    ],
)
def test_a_lazy_config_that_cannot_work_is_told_in_a_line(
    bases: Path, what: str, content: str | bytes, opts: list[str], message: str
) -> None:
    file = bases / "own.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    importing = builtins.__import__
    with pytest.raises(UserError) as error:
        prepare(argparse.Namespace(config_file=str(file), opts=opts, eval_only=False))
    assert message in told(file, error.value)
    assert builtins.__import__ is importing


def test_a_lazy_config_with_all_its_parts_is_taken(bases: Path) -> None:
    (bases / "own.py").write_text(LAZY)
    arguments = argparse.Namespace(
        config_file="own.py", opts=["train.max_iter=5", "optimizer.lr=0.2"], eval_only=False
    )
    cfg = prepare(arguments)
    assert (cfg.train.max_iter, cfg.optimizer.lr) == (5, 0.2)
    assert load_lazy_config("own.py").train.max_iter == 3
