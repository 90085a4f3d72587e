"""A script that knows nothing of this package trains its configs, as Detectron2's own does."""

from pathlib import Path

import pytest
import torch
from tiny_run import metrics, run, write_run

ENVIRONMENT = {"DETECTRON2_ENV_MODULE": "nl_detectron.utils.env"}

# Has the shape of Detectron2's tools/train_net.py: its default config, trainer and command line.
TRAIN_NET = """
import os
from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import COCOEvaluator

register_coco_instances("tiny", {{}}, {json!r}, {images!r})

class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))

def setup(args):
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg

def main(args):
    trainer = Trainer(setup(args))
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    write_run(tmp_path)
    path = tmp_path / "train_net.py"
    names = {"json": str(tmp_path / "tiny.json"), "images": str(tmp_path / "images")}
    path.write_text(TRAIN_NET.format(**names))
    return path


def test_a_stock_script_trains_a_config_with_blocks(script: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    (tmp_path / "with_blocks.yaml").write_text(
        f"""
_BASE_: {config}
MODEL:
  DEVICE: cpu
  BACKBONE: {{NAME: build_nonlocal_resnet_fpn_backbone}}
  RESNETS: {{NON_LOCAL: {{AFTER_BLOCKS: [[], [], [-2], []], NORM: ""}}}}
"""
    )
    arguments = ("--config-file", tmp_path / "with_blocks.yaml", "SOLVER.MAX_ITER", 2)
    stock = ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone")  # which builds no blocks
    refused = run(script, *arguments, *stock, environment=ENVIRONMENT)
    assert refused.returncode
    assert "NON_LOCAL.AFTER_BLOCKS" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "output").exists()

    trained = run(script, *arguments, environment=ENVIRONMENT)
    assert trained.returncode == 0, trained.stderr
    output = tmp_path / "output"
    weights = torch.load(output / "model_final.pth", weights_only=True)["model"]
    assert weights["backbone.bottom_up.res4.nonlocal_after_4.out.weight"].abs().max() > 0
    assert "bbox/AP" in metrics(output)[-1]


@pytest.mark.parametrize("first", ["detectron2", "nl_detectron.layers"])
def test_import_order_does_not_matter(tmp_path: Path, first: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        f"import {first}\n"
        "import nl_detectron\n"
        "from detectron2.config import get_cfg\n"
        "from detectron2.data import DatasetCatalog\n"
        "from detectron2.modeling import BACKBONE_REGISTRY\n"
        "ours = get_cfg()\n"
        "again = get_cfg()\n"
        "nl_detectron.add_nonlocal_config(again)\n"
        "assert ours == again\n"
        "assert ours.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS == [[], [], [], []]\n"
        "assert 'build_nonlocal_resnet_fpn_backbone' in BACKBONE_REGISTRY\n"
        "assert 'nl_shapes_train' in DatasetCatalog\n"
    )
    done = run(path, environment=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
