"""``train_net.py`` as a user runs it: files, flags, errors, several processes."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import tiny_run
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation.testing import flatten_results_dict

from nl_detectron.config import load_config
from nl_detectron.engine import argument_parser, main, run_config
from nl_detectron.utils.errors import UserError

TRAIN_NET = tiny_run.ROOT / "train_net.py"

# Records every loss in full, which metrics.json smooths, and every rank's weights.
RECORD = """
import json
import torch
from detectron2.engine.hooks import CallbackHook
from detectron2.utils import comm

class RecordingTrainer(Trainer):
    def build_hooks(self):
        losses = []
        folder, rank = self.cfg.OUTPUT_DIR, comm.get_rank()
        def after_step(trainer):
            if rank == 0:
                losses.append(trainer.storage.history("total_loss").latest())
        def after_train(trainer):
            torch.save(trainer._trainer.model.state_dict(), f"{folder}/rank{rank}.pth")
            if rank == 0:
                with open(f"{folder}/losses.json", "w") as file:
                    json.dump(losses, file)
        return [CallbackHook(after_step=after_step, after_train=after_train)]

trainer = RecordingTrainer
"""


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 3 iterations with all heads."""
    folder = tmp_path_factory.mktemp("whole_run")
    tiny_run.write_run(folder, heads=True)
    done = tiny_run.run(folder / "run.py", "--config-file", folder / "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def test_a_run_writes_detectron2s_files(whole_run: Path) -> None:
    output = whole_run / "output"
    for name in ("config.yaml", "log.txt", "model_final.pth", "last_checkpoint"):
        assert (output / name).is_file(), name
    assert (output / "inference" / "coco_instances_results.json").is_file()
    last = tiny_run.metrics(output)[-1]
    assert {"bbox/AP50", "segm/AP50", "keypoints/AP50"} <= last.keys()
    trained = tiny_run.metrics(output)[0]
    assert trained["iteration"] == 2
    assert trained["loss_mask"] > 0
    assert trained["loss_keypoint"] > 0


def test_a_run_tells_how_it_goes(whole_run: Path) -> None:
    for file in (whole_run / "stdout.txt", whole_run / "output" / "log.txt"):
        text = file.read_text()
        assert "No GPU is visible to torch: running on the CPU" in text
        assert "iter: 2  total_loss" in text
    assert "DEVICE: cpu" in (whole_run / "output" / "config.yaml").read_text()


def test_resume_goes_on_and_eval_only_evaluates(whole_run: Path, tmp_path: Path) -> None:
    output = whole_run / "output"
    before = torch.load(output / "model_final.pth")
    assert before["iteration"] == 2
    flags = ("--config-file", whole_run / "tiny.yaml")
    # The saved momentum and schedule go on, in a copy: other tests read the first run.
    copied = tmp_path / "resumed"
    copied.mkdir()
    (copied / "model_final.pth").write_bytes((output / "model_final.pth").read_bytes())
    (copied / "last_checkpoint").write_text("model_final.pth")
    resumed = tiny_run.run(
        whole_run / "run.py", *flags, "--resume", "OUTPUT_DIR", copied, "SOLVER.MAX_ITER", 5
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Starting training from iteration 3" in resumed.stdout
    assert torch.load(copied / "model_final.pth")["iteration"] == 4
    result = tiny_run.metrics(copied)[-1]

    evaluated = tiny_run.run(
        whole_run / "run.py", *flags, "--eval-only",
        *("MODEL.WEIGHTS", copied / "model_final.pth", "OUTPUT_DIR", tmp_path / "eval"),
        *("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 101.0, 0.5]]"),
    )  # fmt: skip
    assert evaluated.returncode == 1
    assert "Result verification failed" in evaluated.stdout
    same = tiny_run.metrics(tmp_path / "eval")[-1]
    assert same["bbox/AP50"] == pytest.approx(result["bbox/AP50"])
    assert same["iteration"] == 4
    assert not (tmp_path / "eval" / "model_final.pth").exists()


def test_run_config_returns_the_last_results(whole_run: Path, tmp_path: Path) -> None:
    data, output = str(tmp_path), str(tmp_path / "output")
    json_file, images = whole_run / "tiny.json", whole_run / "images"
    register_coco_instances(data, {}, str(json_file), str(images))
    fixed = ["DATASETS.TRAIN", (data,), "DATASETS.TEST", (data,), "MODEL.KEYPOINT_ON", False]
    fixed += ["OUTPUT_DIR", output, "SOLVER.MAX_ITER", 1]
    found = []
    for eval_only in (False, True):
        weights = f"{output}/model_final.pth" if eval_only else ""
        cfg = load_config(whole_run / "tiny.yaml", [*fixed, "MODEL.WEIGHTS", weights])
        args = Namespace(config_file="", opts=[], eval_only=eval_only, resume=False)
        found.append(flatten_results_dict(run_config(cfg, args)))
    assert {"bbox/AP50", "segm/AP50"} <= found[0].keys()
    assert found[0] == pytest.approx(found[1], nan_ok=True)


def losses_and_weights(folder: Path, name: str, *flags: object) -> tuple[list[float], list[dict]]:
    script = tiny_run.write_script(folder, "record.py", RECORD)
    output = folder / name
    done = tiny_run.run(script, "--config-file", folder / "tiny.yaml", *flags, "OUTPUT_DIR", output)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = [torch.load(path) for path in sorted(output.glob("rank*.pth"))]
    return json.loads((output / "losses.json").read_text()), weights


@pytest.fixture(scope="module")
def box_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box_run")
    tiny_run.write_run(folder)
    config = folder / "tiny.yaml"
    config.write_text(config.read_text().replace("MAX_ITER: 3", "MAX_ITER: 20"))
    return folder


def test_two_processes_have_one_processs_loss_curve(box_run: Path) -> None:
    one, _ = losses_and_weights(box_run, "one")
    two, weights = losses_and_weights(box_run, "two", "--num-gpus", 2, "--dist-url", "auto")
    assert len(one) == len(two) == 20
    assert one[-1] < 0.8 * one[0]
    assert two == pytest.approx(one, abs=1e-4)
    assert len(weights) == 2
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_two_processes_agree_on_batch_statistics_too(tmp_path: Path) -> None:
    tiny_run.write_run(tmp_path, norm="BN")
    _, weights = losses_and_weights(tmp_path, "two", "--num-gpus", 2, "--dist-url", "auto")
    assert len(weights) == 2
    assert any(key.endswith("running_var") for key in weights[0])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_accumulation_has_the_large_batchs_update(box_run: Path) -> None:
    short = ("SOLVER.MAX_ITER", 2)
    large, (large_weights,) = losses_and_weights(
        box_run, "large", *short, "SOLVER.IMS_PER_BATCH", 4
    )
    small, (small_weights,) = losses_and_weights(
        box_run, "small", *short, "SOLVER.IMS_PER_BATCH", 1, "SOLVER.ACCUMULATE_STEPS", 4
    )
    assert small == pytest.approx(large, abs=1e-5)
    for key, weight in large_weights.items():
        torch.testing.assert_close(small_weights[key], weight, rtol=0, atol=1e-5)


# What a user with another mapper and another metric writes.
OWN = """
import os
from pathlib import Path
from detectron2.data import DatasetMapper
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from nl_detectron.data.build import build_train_loader

class GrayMapper(DatasetMapper):
    def __call__(self, record):
        record = super().__call__(record)
        record["image"] = record["image"].float().mean(dim=0, keepdim=True).expand(3, -1, -1)
        Path(os.environ["MAPPED_BY"], str(comm.get_rank())).touch()
        return record

class CountImages(DatasetEvaluator):
    def reset(self):
        self.count = 0
    def process(self, inputs, outputs):
        self.count += len(inputs)
    def evaluate(self):
        counts = comm.gather(self.count)
        return {"images": {"seen": sum(counts)}} if comm.is_main_process() else None

class OwnTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg, mapper=GrayMapper(cfg, True))
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return CountImages()

trainer = OwnTrainer
"""


def test_a_trainer_with_another_mapper_and_another_evaluator(tmp_path: Path) -> None:
    tiny_run.write_run(tmp_path)
    script = tiny_run.write_script(tmp_path, "own.py", OWN)
    flags = (script, "--config-file", tmp_path / "tiny.yaml")
    mapped, environment = tmp_path / "mapped", {"MAPPED_BY": str(tmp_path / "mapped")}
    mapped.mkdir()
    short = ("SOLVER.MAX_ITER", 1)
    done = tiny_run.run(*flags, "--num-gpus", 2, *short, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in mapped.iterdir()) == ["0", "1"]
    output = tmp_path / "output"
    assert tiny_run.metrics(output)[-1]["images/seen"] == 8
    weights = ("MODEL.WEIGHTS", output / "model_final.pth", "OUTPUT_DIR", tmp_path / "eval")
    evaluated = tiny_run.run(*flags, "--eval-only", *weights, environment=environment)
    assert evaluated.returncode == 0, evaluated.stderr
    assert tiny_run.metrics(tmp_path / "eval") == [{"images/seen": 8, "iteration": 0}]


LAZY = """
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper, build_detection_test_loader, build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from fvcore.common.param_scheduler import MultiStepParamScheduler
from detectron2.solver.build import get_default_optimizer_params
import torch

def tiny_model():
    from detectron2.modeling import build_model
    from nl_detectron.config import load_config
    return build_model(load_config({config!r}))

model = L(tiny_model)()
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.01)
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[4], num_updates=9)
sizes = dict(augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=64)])
dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="tiny"),
        mapper=L(DatasetMapper)(is_train=True, image_format="BGR", **sizes),
        total_batch_size=2,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="tiny", filter_empty=False),
        mapper=L(DatasetMapper)(is_train=False, image_format="BGR", **sizes),
    ),
    evaluator=L(COCOEvaluator)(dataset_name="tiny", output_dir={output!r} + "/inference"),
)
train = dict(
    output_dir={output!r}, init_checkpoint="", max_iter=3, amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, fp16_compression=False),
    checkpointer=dict(period=2, max_to_keep=9), eval_period=0, log_period=20, device="cuda",
)
"""


# A trainer of one's own is for LazyConfigs too.
SHOW_HOOK = """
class ShowingTrainer(Trainer):
    def build_hooks(self):
        if isinstance(self.model, torch.nn.parallel.DistributedDataParallel):
            hook = self.model._get_ddp_logging_data()["comm_hook"]
            # Of the first process only, in one piece: both print into one pipe.
            logging.getLogger("detectron2").info(f"hook of DDP: {hook}")
        return super().build_hooks()

import logging
import torch
trainer = ShowingTrainer
"""


def test_a_lazy_config_trains_resumes_and_evaluates(tmp_path: Path) -> None:
    tiny_run.write_run(tmp_path)
    output, config = tmp_path / "lazy", tmp_path / "lazy.py"
    config.write_text(LAZY.format(config=str(tmp_path / "tiny.yaml"), output=str(output)))
    script = tiny_run.write_script(tmp_path, "lazy_run.py", SHOW_HOOK)
    flags = (script, "--config-file", config)
    half = "train.ddp.fp16_compression=True"
    done = tiny_run.run(*flags, "--num-gpus", 2, "--dist-url", "auto", half)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hook of DDP: fp16_compress_hook" in done.stdout
    for name in ("config.yaml", "log.txt", "model_final.pth", "inference"):
        assert (output / name).exists(), name
    assert "bbox/AP50" in tiny_run.metrics(output)[-1]
    # As Detectron2's script for LazyConfigs saves it, and as ours did.
    checkpoint = torch.load(output / "model_final.pth")
    inner = checkpoint["trainer"].pop("_trainer")
    checkpoint["trainer"] = {**inner, **checkpoint["trainer"]}
    torch.save(checkpoint, output / "model_final.pth")
    resumed = tiny_run.run(
        *flags, "--resume", "train.max_iter=4", "train.accumulate_steps=2",
        *("train.wandb_project=trials", "train.expected_results=[[bbox,AP,101,0.5]]"),
        environment={"WANDB_MODE": "offline", "WANDB_SILENT": "true"},
    )  # fmt: skip
    assert "Starting training from iteration 3" in resumed.stdout, resumed.stderr
    assert "Result verification failed" in resumed.stdout
    assert resumed.returncode == 1
    assert len(list(output.glob("wandb/offline-run-*"))) == 1
    assert torch.load(output / "model_final.pth")["iteration"] == 3
    lines = len(tiny_run.metrics(output))
    evaluated = tiny_run.run(
        *flags, "--eval-only", "--resume", "train.expected_results=[[bbox,AP,0,101]]"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Results verification passed" in evaluated.stdout
    assert len(tiny_run.metrics(output)) == lines + 1


def test_a_users_mistake_is_one_line() -> None:
    done = tiny_run.run(TRAIN_NET, "--config-file", "configs/quickstrat.yaml")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1
    assert len(errors) == 1
    assert "quickstart.yaml" in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/quickstart.yaml", "SOLVER.LR", "1"], "unknown key 'SOLVER.LR'"),
        (
            ["configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"],
            r"annotations.instances_train2017.json. DETECTRON2_DATASETS .*nl_shapes_train",
        ),
        (
            ["configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"],
            r"annotations.instances_train2017.json. DETECTRON2_DATASETS .*nl_shapes_train",
        ),
        (["configs/quickstart.yaml", "--num-gpus", "0"], "--num-gpus 0"),
        (["configs/quickstart.yaml", "--num-machines", "2", "--dist-url", "auto"], "--dist-url"),
    ],
)
def test_mistakes_show_before_anything_starts(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, *rest = arguments
    flags = ["--config-file", str(tiny_run.ROOT / file), *rest]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("coco_2017_train", "coco_2017_val"):
        metadata = MetadataCatalog.get(name)
        elsewhere = f"/no/such/folder/annotations/{Path(metadata.json_file).name}"
        monkeypatch.setitem(metadata.__dict__, "json_file", elsewhere)
    with pytest.raises(UserError, match=message):
        main(argument_parser().parse_args(flags))


def test_a_missing_checkpoint_is_one_line(whole_run: Path, tmp_path: Path) -> None:
    done = tiny_run.run(
        whole_run / "run.py", "--config-file", whole_run / "tiny.yaml", "--eval-only",
        *("MODEL.WEIGHTS", tmp_path / "no.pth", "OUTPUT_DIR", tmp_path),
    )  # fmt: skip
    assert done.returncode == 1
    assert f"error: cannot read the checkpoint '{tmp_path}/no.pth'" in done.stderr
    assert "Traceback" not in done.stderr
