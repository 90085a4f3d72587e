"""Evaluation of images: its needs are checked before training, and its results are right."""

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import forked
import numpy as np
import pytest
import tiny_run
import torch
from detectron2.config import CfgNode, LazyCall
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.engine import create_ddp_model
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from pycocotools.coco import COCO
from torch import nn
from torch.nn import functional as F

from nl_detectron.config import load_config
from nl_detectron.data import check_datasets
from nl_detectron.data.build import build_test_loader, check_metadata
from nl_detectron.data.validation import Run
from nl_detectron.engine import StepTrainer, Trainer, run_config
from nl_detectron.engine.hooks import PreciseBN
from nl_detectron.engine.train_loop import check_test_classes
from nl_detectron.evaluation import build_evaluator
from nl_detectron.utils.errors import UserError

Content = dict[str, Any]


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Name of a registered dataset; its file is ``tiny.json`` in `tmp_path`."""
    tiny_run.write_run(tmp_path, heads=True)
    register(tmp_path.name, tmp_path / "tiny.json")
    return tmp_path.name


def register(name: str, file: Path, **metadata: Any) -> None:
    people = MetadataCatalog.get("keypoints_coco_2017_val")
    keys = ("keypoint_names", "keypoint_flip_map")
    metadata = {key: people.get(key) for key in keys} | metadata
    register_coco_instances(name, metadata, str(file), str(file.parent / "images"))


def config(folder: Path, *opts: Any) -> CfgNode:
    name = folder.name
    fixed = ["DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,), "SOLVER.MAX_ITER", 1]
    return load_config(folder / "tiny.yaml", [*fixed, *opts])


def change(folder: Path, edit: Callable[[Content], Any], name: str = "tiny.json") -> Path:
    """Write the dataset's file with one change, as `name`."""
    content = json.loads((folder / "tiny.json").read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def evaluator_of(cfg: Any, name: str) -> Any:
    """Return the evaluator of a loaded dataset."""
    DatasetCatalog.get(name)
    return build_evaluator(cfg, name)


def perfect_outputs(api: COCO):
    """Yield, for each image, the predictions of a model without any error."""
    for image_id, image in api.imgs.items():
        annotations = [a for a in api.imgToAnns[image_id] if not a["iscrowd"]]
        boxes = [
            BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for a in annotations
        ]
        keypoints = torch.tensor([a["keypoints"] for a in annotations], dtype=torch.float32)
        keypoints = keypoints.reshape(-1, 17, 3)
        keypoints[..., :2] += 0.5  # models speak of points, the files of pixels
        instances = Instances(
            (image["height"], image["width"]),
            pred_boxes=Boxes(torch.tensor(boxes)),
            scores=torch.ones(len(annotations)),
            pred_classes=torch.tensor([a["category_id"] - 1 for a in annotations]),
            pred_masks=torch.tensor(np.array([api.annToMask(a) for a in annotations])),
            pred_keypoints=keypoints,
        )
        yield {"image_id": image_id}, {"instances": instances}


def score(evaluator: Any, outputs: Iterator[tuple[Content, Content]]) -> dict[str, dict]:
    evaluator.reset()
    for image, output in outputs:
        evaluator.process([image], [output])
    return evaluator.evaluate()


def run(cfg: Any, *, eval_only: bool = False) -> dict[str, Any]:
    args = Namespace(config_file="", opts=[], eval_only=eval_only, resume=False)
    return run_config(cfg, args)


def refuses(names: Sequence[object], function: Callable, *args: Any, **options: Any) -> None:
    """Check that a call ends with one line that has the names."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert [name for name in names if str(name) not in message] == []


# Annotations


@pytest.mark.parametrize(
    ("mask", "keypoints", "names", "tasks"),
    [
        (True, True, True, {"bbox", "segm", "keypoints"}),
        (False, True, False, {"bbox"}),
    ],
)
def test_evaluated_tasks_follow_model_and_data(
    dataset: str, tmp_path: Path, mask: bool, keypoints: bool, names: bool, tasks: set[str]
) -> None:
    if not names:
        MetadataCatalog.remove(dataset)
        MetadataCatalog.get(dataset).set(json_file=str(tmp_path / "tiny.json"))
    opts = ["MODEL.MASK_ON", mask, "MODEL.KEYPOINT_ON", keypoints]
    evaluator = evaluator_of(config(tmp_path, *opts), dataset)
    found = score(evaluator, perfect_outputs(COCO(str(tmp_path / "tiny.json"))))
    assert {task: scores["AP"] for task, scores in found.items()} == pytest.approx(
        dict.fromkeys(tasks, 100)
    )


def test_missing_derivable_fields_are_filled_in(dataset: str, tmp_path: Path) -> None:
    cfg, api = config(tmp_path), COCO(str(tmp_path / "tiny.json"))
    whole = score(evaluator_of(cfg, dataset), perfect_outputs(api))

    def strip(content: Content) -> None:
        for number, annotation in enumerate(content["annotations"]):
            del annotation["iscrowd"], annotation["num_keypoints"], annotation["area"]
            if number % 2:
                annotation |= {"iscrowd": None, "area": 0}

    change(tmp_path, strip)
    for task, scores in score(evaluator_of(cfg, dataset), perfect_outputs(api)).items():
        assert scores == pytest.approx(whole[task], nan_ok=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("segmentation", None),
        ("keypoints", None),
        ("keypoints", [1, 2, 2]),
        ("bbox", None),
    ],
)
def test_invalid_annotation_is_reported(dataset: str, tmp_path: Path, key: str, value: Any) -> None:
    def spoil(content: Content) -> None:
        content["annotations"][4][key] = value
        if value is None:
            del content["annotations"][4][key]

    register(f"{dataset}_test", change(tmp_path, spoil, "spoiled.json"))
    cfg = config(tmp_path, "DATASETS.TEST", (f"{dataset}_test",))
    refuses((f"{dataset}_test", "annotation 5 ", key), run, cfg)


def test_changed_dataset_function_is_not_cached(dataset: str, tmp_path: Path) -> None:
    cfg, name = config(tmp_path, "MODEL.KEYPOINT_ON", False), f"{dataset}_function"
    records = load_coco_json(str(tmp_path / "tiny.json"), str(tmp_path / "images"))
    DatasetCatalog.register(name, lambda: records)
    for _ in range(2):  # a second run, in the same folder, has fewer images
        MetadataCatalog.get(name).set(thing_classes=["background", "person", "square"])
        assert len(build_evaluator(cfg, name)._coco_api.imgs) == len(records)
        MetadataCatalog.remove(name)
        del records[0]


def lazy_config(**parts: Any) -> DictConfig:
    return OmegaConf.create(parts, flags={"allow_objects": True})


def test_ap_counts_more_than_100_detections(dataset: str, tmp_path: Path) -> None:
    boxes = [[x, y, 2, 2] for x in range(0, 60, 3) for y in range(0, 45, 3)]
    assert len(boxes) == 300

    def crowd(content: Content) -> None:
        content["annotations"] = [
            {"id": i, "image_id": 0, "category_id": 1 + i % 2, "bbox": box, "area": 4, "iscrowd": 0}
            for i, box in enumerate(boxes, 1)
        ]

    change(tmp_path, crowd)
    heads = ["MODEL.MASK_ON", False, "MODEL.KEYPOINT_ON", False]
    corners = torch.tensor(boxes, dtype=torch.float32)
    instances = Instances(
        (tiny_run.SIZE, tiny_run.SIZE),
        pred_boxes=Boxes(BoxMode.convert(corners, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)),
        pred_classes=torch.arange(1, 301) % 2,
        scores=torch.linspace(1, 0.5, 300),
    )
    lazy = lazy_config(
        model={"roi_heads": {"box_predictor": {"test_topk_per_image": 300}}},
        dataloader={"evaluator": LazyCall(COCOEvaluator)(dataset_name=dataset)},
    )
    for cfg in (config(tmp_path, *heads, "TEST.DETECTIONS_PER_IMAGE", 300), lazy):
        outputs = iter([({"image_id": 0}, {"instances": instances})])
        assert score(evaluator_of(cfg, dataset), outputs)["bbox"]["AP"] == pytest.approx(100)


# Categories


def parent(content: Content) -> None:
    """Add a category 0 without objects, as Roboflow does, which shifts the others."""
    content["categories"].insert(0, {"id": 0, "name": "things"})


def swap(content: Content) -> None:
    first, second = content["categories"]
    first["name"], second["name"] = second["name"], first["name"]


@pytest.mark.parametrize(("edit", "eval_only"), [(parent, True), (swap, False)])
def test_category_mismatch_is_refused_before_running(
    dataset: str, tmp_path: Path, edit: Callable[[Content], None], eval_only: bool
) -> None:
    register(f"{dataset}_test", file := change(tmp_path, edit, "other.json"))
    cfg = config(tmp_path, "DATASETS.TEST", (f"{dataset}_test",))
    refuses((file, "person", "square"), run, cfg, eval_only=eval_only)
    assert not list((tmp_path / "output").glob("*.pth"))


def test_category_count_is_checked_without_training_set(dataset: str, tmp_path: Path) -> None:
    register(f"{dataset}_test", file := change(tmp_path, parent, "other.json"))
    names = ["DATASETS.TRAIN", ("nowhere",), "DATASETS.TEST", (f"{dataset}_test",)]
    names += ["MODEL.KEYPOINT_ON", False]
    told = (file, "things", "MODEL.ROI_HEADS.NUM_CLASSES")
    refuses(told, build_test_loader, config(tmp_path, *names), f"{dataset}_test")
    lazy = lazy_config(
        model={"roi_heads": {"num_classes": 2}},
        dataloader={"test": lazy_loader(f"{dataset}_test")},
    )
    told = (file, "things", "model.roi_heads.num_classes")
    refuses(told, build_test_loader, lazy, f"{dataset}_test")


def lazy_loader(name: str) -> Any:
    mapper = LazyCall(DatasetMapper)(
        is_train=False,
        image_format="BGR",
        augmentations=[LazyCall(T.ResizeShortestEdge)(short_edge_length=64, max_size=64)],
    )
    return LazyCall(build_detection_test_loader)(
        dataset=LazyCall(get_detection_dataset_dicts)(names=name, filter_empty=False),
        mapper=mapper,
    )


def test_checkpoint_classes_are_compared_with_test_set(dataset: str, tmp_path: Path) -> None:
    opts = ["MODEL.KEYPOINT_ON", False]
    run(config(tmp_path, *opts))
    register(f"{dataset}_test", file := change(tmp_path, swap, "other.json"))
    opts += ["DATASETS.TRAIN", ("nowhere",), "DATASETS.TEST", (f"{dataset}_test",)]
    opts += ["MODEL.WEIGHTS", str(tmp_path / "output" / "model_final.pth")]
    refuses((file, "person", "square"), run, config(tmp_path, *opts), eval_only=True)


def test_named_video_classes_are_compared(dataset: str, tmp_path: Path) -> None:
    for name, classes in {"a": ["run", "sit"], "b": ["sit", "run"], "n": ["0", "1"]}.items():
        DatasetCatalog.register(f"{dataset}_{name}", list)
        MetadataCatalog.get(f"{dataset}_{name}").set(thing_classes=classes)
    trained = {"thing_classes": ["run", "sit"]}
    check_test_classes(config(tmp_path, "DATASETS.TEST", (f"{dataset}_a", f"{dataset}_n")), trained)
    cfg = config(tmp_path, "DATASETS.TEST", (f"{dataset}_b",))
    refuses((f"{dataset}_b", "run"), check_test_classes, cfg, trained)


def test_eval_categories_may_differ(dataset: str, tmp_path: Path) -> None:
    """A config of the zoo with other classes and another test dataset."""
    names = ["DATASETS.TRAIN", ("keypoints_coco_2017_train",), "DATASETS.TEST", (dataset,)]
    assert build_test_loader(config(tmp_path, *names), dataset)


def test_training_sets_must_share_categories(dataset: str, tmp_path: Path) -> None:
    register(f"{dataset}_more", change(tmp_path, swap, "other.json"))
    cfg = config(tmp_path, "DATASETS.TRAIN", (dataset, f"{dataset}_more"))
    refuses((dataset, f"{dataset}_more", "thing_classes"), Trainer.build_train_loader, cfg)


# Test-time augmentation


def test_augmented_results_have_a_suffix_and_a_folder(dataset: str, tmp_path: Path) -> None:
    opts = ["MODEL.KEYPOINT_ON", False, "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (48, 64)]
    opts += ["MODEL.RESNETS.NORM", "BN"]
    opts += ["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2]
    trained = run(config(tmp_path, *opts))
    assert set(trained) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    output = tmp_path / "output"
    assert (output / "inference_TTA" / "coco_instances_results.json").is_file()
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth"), "OUTPUT_DIR", str(tmp_path / "e")]
    evaluated = run(config(tmp_path, *opts, *weights), eval_only=True)
    for task, scores in trained.items():  # of the model that is saved, with its statistics
        assert evaluated[task] == pytest.approx(scores, nan_ok=True)


# Batch norm


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.norm(batch).square().mean()}


def precise_statistics(batches: list[torch.Tensor]) -> list[torch.Tensor]:
    model = Normed().double()
    PreciseBN(0, model, batches, len(batches)).update_stats()
    return [model.norm.running_mean, model.norm.running_var]


def trained_statistics(batches: list[torch.Tensor]) -> list[torch.Tensor]:
    model = Normed().double()
    together = create_ddp_model(model, device_ids=None, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = StepTrainer(model=together, data_loader=batches, optimizer=optimizer)
    with EventStorage():
        for trainer.iter in range(len(batches)):
            trainer.run_step()
    return [model.norm.running_mean, model.norm.running_var]


@forked.in_fresh_process
def test_batch_norm_statistics_cover_all_processes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    offsets = 5 * torch.randn(4, 1, 3, 1, 1, generator=generator, dtype=torch.float64)
    batches = list(offsets + torch.randn(4, 2, 3, 5, 7, generator=generator, dtype=torch.float64))
    expected = precise_statistics(batches)
    together = trained_statistics(
        list(map(torch.cat, zip(batches[::2], batches[1::2], strict=True)))
    )

    def in_process() -> None:
        own = batches[comm.get_rank() :: 2]
        torch.testing.assert_close(precise_statistics(own), expected)
        first, second = comm.all_gather(trained_statistics(own))
        assert all(map(torch.equal, first, second))
        torch.testing.assert_close(first, together, rtol=0.02, atol=0)  # unbiased: n - 1 of 140

    assert forked.run_forked(2, in_process, tmp_path / "store") == [0, 0]


# Other kinds of datasets


def test_semantic_segmentation_is_evaluated(dataset: str, tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[5:9, 3:20] = 1
    cv2.imwrite(str(tmp_path / "truth.png"), labels)
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "truth.png")}
    DatasetCatalog.register(name := f"{dataset}_semantic", lambda: [record])
    MetadataCatalog.get(name).set(
        stuff_classes=["ground", "person"], ignore_label=255, evaluator_type="sem_seg"
    )
    cfg = config(tmp_path, "MODEL.META_ARCHITECTURE", "SemanticSegmentor")
    scores = F.one_hot(torch.from_numpy(labels).long()).permute(2, 0, 1)
    found = score(evaluator_of(cfg, name), iter([(record, {"sem_seg": scores})]))
    assert found["sem_seg"]["mIoU"] == pytest.approx(100)


@pytest.mark.parametrize("key", ["gt_dir", "panoptic_root"])
def test_missing_folder_is_reported_at_start(dataset: str, tmp_path: Path, key: str) -> None:
    MetadataCatalog.get(dataset).set(**{key: str(tmp_path / "nowhere")})
    refuses((dataset, tmp_path / "nowhere"), check_datasets, [dataset])


def test_unknown_evaluator_type_is_refused_before_training(dataset: str, tmp_path: Path) -> None:
    DatasetCatalog.register(name := f"{dataset}_new", lambda: DatasetCatalog.get(dataset))
    MetadataCatalog.get(name).set(evaluator_type="rotated")
    refuses((name, "rotated"), run, config(tmp_path, "DATASETS.TEST", (name,)))
    assert not list((tmp_path / "output").glob("*.pth"))


# LazyConfigs


def test_a_lazy_configs_evaluators_may_be_a_list(dataset: str, tmp_path: Path) -> None:
    class Count(COCOEvaluator):
        def evaluate(self) -> dict[str, dict[str, float]]:
            return {"images": {"seen": len(self._predictions)}}

    train = {"output_dir": str(tmp_path / "output"), "device": "cpu", "init_checkpoint": ""}
    cfg = lazy_config(
        model=LazyCall(lambda: Trainer.build_model(config(tmp_path)))(),
        dataloader={
            "test": lazy_loader(dataset),
            "evaluator": [
                LazyCall(COCOEvaluator)(dataset_name=dataset, kpt_oks_sigmas=[0.1] * 17),
                LazyCall(Count)(dataset_name=dataset),
            ],
        },
        train=train,
    )
    check_metadata(Run.of(cfg))
    found = run(cfg, eval_only=True)
    assert found["images"] == {"seen": 8}
    assert {"bbox", "segm", "keypoints"} <= found.keys()
