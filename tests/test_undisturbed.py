"""Importing nl_detectron and adding its keys changes nothing of Detectron2 but its registries.

In a process of its own, as an import cannot be undone: it looks at Detectron2 before and after.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LOOK = '''
import hashlib, json, logging, os, random, sys, types, warnings
import numpy as np, torch
import detectron2.config, detectron2.data, detectron2.engine, detectron2.evaluation
import detectron2.export, detectron2.modeling, detectron2.solver, detectron2.checkpoint
import detectron2.utils.visualizer, detectron2.utils.video_visualizer
import fvcore.common.checkpoint, fvcore.common.registry
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from fvcore.common.registry import Registry

torch.set_num_threads(1)


def modules():
    """The modules of Detectron2 and fvcore by name, as far as they are loaded."""
    return {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("detectron2", "fvcore")}


def registries():
    found = {v._name: [name for name, _ in v]
             for m in modules().values() for v in vars(m).values() if isinstance(v, Registry)}
    return {**found, "datasets": list(DatasetCatalog), "metadata": list(MetadataCatalog)}


def attributes(loaded):
    """Every attribute of modules and of their classes, by identity."""
    found = {}
    for name, module in loaded.items():
        for key, value in list(vars(module).items()):
            found[f"{name}.{key}"] = id(value)
            if isinstance(value, type) and value.__module__ == name:
                for k, v in vars(value).items():
                    if k not in ("_abc_impl", "__subclasshook__"):
                        found[f"{name}.{key}.{k}"] = id(v)
    return found


def entries():
    """Every registered object, by identity."""
    found = {f"{v._name}.{key}": id(entry)
             for m in modules().values() for v in vars(m).values() if isinstance(v, Registry)
             for key, entry in v}
    return {**found, **{name: id(DatasetCatalog.data[name]) for name in DatasetCatalog}}


def surroundings():
    return {
        "environment": sorted(os.environ.items()),
        "torch": [torch.get_num_threads(), str(torch.get_default_dtype()),
                  torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
                  torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
                  torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision(),
                  torch.backends.cuda.flash_sdp_enabled(), torch.is_autocast_enabled("cpu")],
        "warnings": [str(f) for f in warnings.filters],
        "show": id(warnings.showwarning),
        "logging": [logging.root.level, len(logging.root.handlers), logging.root.disabled,
                    logging.raiseExceptions, id(logging.getLoggerClass()),
                    {n: [logging.getLogger(n).level, len(logging.getLogger(n).handlers)]
                     for n in ("detectron2", "fvcore", "d2", "torch", "PIL", "matplotlib")}],
        "hooks": [id(sys.excepthook), id(__import__), sys.getrecursionlimit(), os.getcwd()],
        "random": [hashlib.sha256(repr(random.getstate()).encode()).hexdigest(),
                   hashlib.sha256(repr(np.random.get_state()).encode()).hexdigest(),
                   hashlib.sha256(torch.get_rng_state().numpy()).hexdigest(),
                   sorted(np.geterr().items())],
    }


def configs(add=lambda cfg: None):
    for name in ("mask", "keypoint", "retina"):
        cfg = get_cfg()
        add(cfg)
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON = name == "mask", name == "keypoint"
        cfg.MODEL.RESNETS.DEPTH = 50
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
        cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "BN"
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        cfg.MODEL.FPN.OUT_CHANNELS = 8
        if name == "retina":
            cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
            cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
            levels = ["p3", "p4", "p5", "p6", "p7"]
            cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
            cfg.MODEL.RETINANET.IN_FEATURES = levels
            cfg.MODEL.RETINANET.NUM_CLASSES = 2
            cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
        else:
            cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
            stages = ["res2", "res3", "res4", "res5"]
            cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = stages
            levels = ["p2", "p3", "p4", "p5", "p6"]
            cfg.MODEL.RPN.IN_FEATURES = levels
            cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
            cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
            cfg.MODEL.ROI_HEADS.IN_FEATURES = levels[:4]
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
            cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
            cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
            cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 16
            cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
            cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 8
            cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [8, 8]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
        yield name, cfg


def example():
    random = torch.Generator().manual_seed(5)
    boxes = torch.tensor([[4.0, 6, 30, 50], [20, 10, 60, 44]])
    truth = Instances((64, 64), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 1]))
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 6:50, 4:30] = masks[1, 10:44, 20:60] = True
    truth.gt_masks = BitMasks(masks)
    points = torch.rand(2, 17, 3, generator=random) * 20 + 22
    points[..., 2] = 2
    truth.gt_keypoints = Keypoints(points)
    image = torch.randint(0, 256, (3, 64, 64), generator=random).float()
    return {"image": image, "instances": truth, "height": 64, "width": 64}


def digest(value):
    if isinstance(value, dict):
        parts = [(k, digest(v)) for k, v in value.items()]
    elif isinstance(value, torch.Tensor):
        parts = [tuple(value.shape), str(value.dtype), value.detach().numpy().tobytes()]
    else:
        parts = [getattr(value, "tensor", None)]
        return digest(parts[0])
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def behaviour(add=lambda cfg: None):
    """Weights, losses, gradients, updated statistics and predictions of stock models, hashed."""
    found = {}
    for name, cfg in configs(add):
        torch.manual_seed(11)
        model = build_model(cfg)
        start = digest(model.state_dict())
        keys = list(model.state_dict())
        with EventStorage():
            losses = model([example()])
        sum(losses.values()).backward()
        gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        model.eval()
        with torch.no_grad():
            output = model([example()])[0]["instances"]
        found[name] = {
            "keys": keys, "weights": start, "printed": str(model), "instances": len(output),
            "losses": {k: v.item().hex() for k, v in losses.items()},
            "gradients": digest(gradients), "after": digest(model.state_dict()),
            "predictions": digest(output.get_fields()),
        }
    return found
'''
BOTH = """
before, loaded, held = behaviour(), modules(), entries()
was, objects = surroundings(), attributes(loaded)
names = registries()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import nl_detectron
    import nl_detectron.engine, nl_detectron.engine.predictor, nl_detectron.data.build
    import nl_detectron.model_zoo, nl_detectron.checkpoint
is_now, now_held, now_objects = surroundings(), entries(), attributes(loaded)
submodules = {f"{n.rpartition('.')[0]}.{n.rpartition('.')[2]}" for n in modules()}
cfg = get_cfg()
nl_detectron.add_nonlocal_config(cfg)
theirs = get_cfg()
for section, key in ((cfg.MODEL.RESNETS, "NON_LOCAL"), (cfg, "WANDB"),
                     (cfg.MODEL.ROI_KEYPOINT_HEAD, "NON_LOCAL"), (cfg.SOLVER, "ACCUMULATE_STEPS"),
                     (cfg.MODEL, "VIDEO_RESNET"), (cfg.MODEL, "VIDEO_CLASSIFIER"),
                     (cfg.INPUT, "CLIP"), (cfg.TEST, "CLIPS"), (cfg.TEST, "CROPS"),
                     (cfg.TEST, "VIEW_POOLING"), (cfg.DATALOADER, "SKIP_BAD_VIDEOS"),
                     (cfg.DATALOADER, "MAX_BAD_VIDEOS"),
                     (cfg.DATASETS, "REGISTER"), (cfg.TEST, "ATTENTION_SAMPLES")):
    section.pop(key)
print(json.dumps({
    "registries before": names,
    "registries": registries(),
    "other entries": [k for k in held if now_held.get(k) != held[k]],
    "other attributes": [k for k, v in objects.items() if now_objects.get(k) != v],
    "new attributes": sorted(now_objects.keys() - objects.keys() - submodules),
    "surroundings": [k for k in was if was[k] != is_now[k]],
    "warnings": [str(w.message) for w in caught if "nl_detectron" in w.filename],
    "config": cfg == theirs,
    "before": before,
    "behaviour": behaviour(nl_detectron.add_nonlocal_config),
}))
"""


def run(code: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", LOOK + code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def both() -> dict:
    return run(BOTH)


def test_registries_are_the_same_and_ours(both: dict) -> None:
    ours: dict[str, set[str]] = {}
    for registry, names in both["registries"].items():
        stock = both["registries before"].get(registry, [])
        assert names[: len(stock)] == stock
        if added := set(names[len(stock) :]):
            ours[registry] = added
    assert ours.keys() == {*("BACKBONE", "META_ARCH", "ROI_KEYPOINT_HEAD", "datasets", "metadata")}
    assert ours["BACKBONE"] == {
        "build_nonlocal_resnet_backbone",
        "build_nonlocal_resnet_fpn_backbone",
        "build_nonlocal_retinanet_resnet_fpn_backbone",
        "build_nonlocal_video_resnet_backbone",
    }
    assert ours["META_ARCH"] == {"VideoClassifier"}
    assert ours["ROI_KEYPOINT_HEAD"] == {"NonLocalKRCNNConvDeconvUpsampleHead"}
    prefixes = ("nl_", "kinetics400_", "charades_")
    assert all(name.startswith(prefixes) for name in ours["datasets"] | ours["metadata"])
    assert not both["other entries"]


def test_nothing_of_detectron2_is_replaced(both: dict) -> None:
    assert not both["other attributes"]
    assert not both["new attributes"]


def test_the_process_is_left_as_it_was(both: dict) -> None:
    assert not both["surroundings"]
    assert not both["warnings"]


def test_detectron2s_own_keys_keep_their_defaults(both: dict) -> None:
    assert both["config"]


@pytest.mark.parametrize("model", ["mask", "keypoint", "retina"])
def test_a_stock_model_behaves_bit_for_bit_the_same(both: dict, model: str) -> None:
    assert both["before"][model]["instances"] > 0
    assert both["before"][model]["keys"]
    assert both["behaviour"][model] == both["before"][model]
