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


'''
BOTH = """
loaded, held = modules(), entries()
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
}))
"""


@pytest.fixture(scope="module")
def both() -> dict:
    done = subprocess.run(
        [sys.executable, "-c", LOOK + BOTH],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_registries_only_gain_own_entries(both: dict) -> None:
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
