"""``train_net.py`` as a user runs it: files, flags, errors, several processes."""

from pathlib import Path

import pytest
import tiny_run
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from recording import record

from nl_detectron.engine import argument_parser, main
from nl_detectron.utils.errors import UserError

TRAIN_NET = tiny_run.ROOT / "train_net.py"


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 3 iterations with all heads."""
    folder = tmp_path_factory.mktemp("whole_run")
    tiny_run.write_run(folder, heads=True)
    done = tiny_run.run(folder / "run.py", "--config-file", folder / "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "iter: 2  total_loss" in done.stdout
    return folder


def test_a_run_writes_detectron2s_files(whole_run: Path) -> None:
    output = whole_run / "output"
    for name in ("config.yaml", "log.txt", "model_final.pth", "last_checkpoint"):
        assert (output / name).is_file(), name
    assert (output / "inference" / "coco_instances_results.json").is_file()
    first, *_, last = tiny_run.metrics(output)
    assert {"bbox/AP50", "segm/AP50", "keypoints/AP50"} <= last.keys()
    assert first["iteration"] == 2
    assert first["loss_mask"] > 0
    assert first["loss_keypoint"] > 0


def run_here(folder: Path, *arguments: object) -> None:
    """Run ``run.py`` of `folder` in this process."""
    people = MetadataCatalog.get("keypoints_coco_2017_val")
    keypoints = {key: people.get(key) for key in ("keypoint_names", "keypoint_flip_map")}
    if "tiny" not in DatasetCatalog:
        json_file, images = str(folder / "tiny.json"), str(folder / "images")
        register_coco_instances("tiny", keypoints, json_file, images)
    main(argument_parser().parse_args(list(map(str, arguments))))


def test_eval_only_reproduces_training_metrics(whole_run: Path, tmp_path: Path) -> None:
    weights = ("MODEL.WEIGHTS", whole_run / "output" / "model_final.pth", "OUTPUT_DIR", tmp_path)
    wrong = ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 101.0, 0.5]]")
    with pytest.raises(SystemExit) as ended:
        run_here(
            whole_run, "--config-file", whole_run / "tiny.yaml", "--eval-only", *weights, *wrong
        )
    assert ended.value.code == 1
    expected, found = (tiny_run.metrics(f)[-1] for f in (whole_run / "output", tmp_path))
    figures = {key: value for key, value in expected.items() if "/" in key}
    assert {key: found[key] for key in figures} == pytest.approx(figures, nan_ok=True)
    assert found["iteration"] == 2
    assert not (tmp_path / "model_final.pth").exists()


def test_two_processes_match_single_process_losses(tmp_path: Path) -> None:
    tiny_run.write_run(tmp_path)
    script = tiny_run.write_script(tmp_path, "record.py", tiny_run.RECORD)
    for name, *flags in (("one",), ("two", "--num-gpus", 2, "--dist-url", "auto")):
        # Later, rounding can move a proposal over the threshold of IoU.
        opts = ("SOLVER.MAX_ITER", 10, "OUTPUT_DIR", tmp_path / name)
        line = ("--config-file", tmp_path / "tiny.yaml", *flags, *opts)
        done = tiny_run.run(script, *line, environment={"OMP_NUM_THREADS": "2"})
        assert done.returncode == 0, done.stdout + done.stderr
    assert [record(tmp_path / name)[0]["threads"] for name in ("one", "two")] == [2, 1]
    one, two = ([line["loss"] for line in record(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == 10
    assert one[-1] < 0.8 * one[0]
    assert two == pytest.approx(one, abs=1e-4)
    first, second = ([line["momentum"] for line in record(tmp_path / "two", i)] for i in (0, 1))
    assert first == second


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


def test_a_lazy_config_trains_resumes_and_evaluates(tmp_path: Path) -> None:
    tiny_run.write_run(tmp_path)
    output, config = tmp_path / "lazy", tmp_path / "lazy.py"
    config.write_text(LAZY.format(config=str(tmp_path / "tiny.yaml"), output=str(output)))
    half = "train.ddp.fp16_compression=True"
    flags = ("--config-file", config, "--num-gpus", 2, "--dist-url", "auto", half)
    done = tiny_run.run(tmp_path / "run.py", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("config.yaml", "log.txt", "model_final.pth", "inference"):
        assert (output / name).exists(), name
    assert "bbox/AP50" in tiny_run.metrics(output)[-1]
    wrong = "train.expected_results=[[bbox,AP,101,0.5]]"
    with pytest.raises(SystemExit) as ended:
        run_here(tmp_path, "--config-file", config, "--resume", "train.max_iter=4", wrong)
    assert ended.value.code == 1
    assert torch.load(output / "model_final.pth")["iteration"] == 3
    assert tiny_run.metrics(output)[-1]["iteration"] == 4
    lines = len(tiny_run.metrics(output))
    run_here(tmp_path, "--config-file", config, "--eval-only", "--resume")
    assert len(tiny_run.metrics(output)) == lines + 1


def test_user_error_is_one_line() -> None:
    done = tiny_run.run(TRAIN_NET, "--config-file", "configs/quickstrat.yaml")
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1
    assert "quickstart.yaml" in error
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"], "DETECTRON2_DATASETS"),
        (["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"], "DETECTRON2_DATASETS"),
        (["quickstart.yaml", "DATASETS.TRAIN", "('nl_shapes_tran',)"], "'nl_shapes_train'"),
        (["quickstart.yaml", "--num-gpus", "0"], "--num-gpus"),
        (["quickstart.yaml", "--num-machines", "2", "--dist-url", "auto"], "--dist-url"),
        (["quickstart.yaml", "--num-machines", "2", "--machine-rank", "2"], "--machine-rank"),
    ],
)
def test_user_errors_are_raised_before_training(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, *rest = arguments
    flags = ["--config-file", str(tiny_run.ROOT / "configs" / file), *rest]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("coco_2017_train", "coco_2017_val"):
        metadata = MetadataCatalog.get(name)
        elsewhere = f"/no/such/folder/annotations/{Path(metadata.json_file).name}"
        monkeypatch.setitem(metadata.__dict__, "json_file", elsewhere)
    with pytest.raises(UserError, match=message):
        main(argument_parser().parse_args(flags))
