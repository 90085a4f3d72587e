"""TorchScript and ONNX files of a model or its parts, each checked against the model itself, and
its weights alone as safetensors.

| part | input | outputs |
|---|---|---|
| backbone | ``image`` (N, 3, H, W), normalised and padded | its maps by name |
| keypoint_head | ``regions`` (R, C, S, S), R = 0 included | ``heatmaps`` (R, K, 4S, 4S), logits |
| detector | ``image`` (3, H, W), pixels as the model takes them | ``pred_boxes``, ``scores``, ... |

N, H, W and R are free. TorchScript files are traces and return a dict; ONNX files have the same
names as their outputs. A detector takes one image, already resized, and gives boxes in its
pixels and masks as Detectron2's heads give them, inside their boxes: resizing before and
``detectron2.modeling.postprocessing`` after are not in the file.

What Detectron2 0.6 cannot export:

- Its detector in ONNX stops at the keypoints' heat maps: ``heatmaps_to_keypoints`` resizes each
  region's map to its own box in a loop, which no ONNX exporter takes. Apply that function to
  ``pred_keypoint_heatmaps`` and ``pred_boxes``. TorchScript files have ``pred_keypoints`` too.
- Its detector cannot go through ``torch.export``, on which torch's present ONNX exporter rests:
  `Instances` and branches on the number of boxes stand in the way. The older exporter, which
  traces, is used for it; backbone and head go through the present one.
- A trace holds the number of images fixed, so a detector takes one. Scripting
  (``scripting_with_instances``) would free it, but does not know a backbone with added blocks.
- Other meta-architectures than GeneralizedRCNN with StandardROIHeads: only their backbone.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import GeneralizedRCNN, StandardROIHeads
from detectron2.structures import Boxes, Instances
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError

PARTS = ("backbone", "keypoint_head", "detector")
SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx"}
WEIGHTS_FORMAT = "safetensors"
TOLERANCE = 1e-4

# The newest version that torch's older exporter, needed for detectors, can write.
_ONNX_VERSION = 20
_REGIONS = (0, 1, 20)

Outputs = dict[str, Tensor]
Run = Callable[[Tensor], Outputs]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of an exported file with the model.

    `error` is the largest difference, relative to the largest value of its output; infinite where
    shapes or detections differ.
    """

    part: str
    input: str
    found: str
    error: float

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCE


def parts_of(model: nn.Module) -> list[str]:
    """Which of PARTS can be exported from `model`."""
    heads = getattr(model, "roi_heads", None)
    standard = type(model) is GeneralizedRCNN and isinstance(heads, StandardROIHeads)
    there = {
        "backbone": hasattr(model, "backbone"),
        "keypoint_head": hasattr(getattr(heads, "keypoint_head", None), "layers"),
        "detector": standard
        and hasattr(getattr(heads, "box_predictor", None), "test_score_thresh"),
    }
    return [part for part in PARTS if there[part]]


def export_part(
    model: Any, *, part: str, file_format: str, path: Path, images: Sequence[Tensor]
) -> list[Check]:
    """Write one part of `model`, in evaluation mode on the CPU, to `path`, and check the file.

    Args:
        part: one of PARTS.
        file_format: a key of SUFFIXES. ONNX files are run in onnxruntime.
        images: (3, H, W) each, pixels as the model takes them: what a detector is checked on.

    Raises:
        UserError: `model` has no such part, torch cannot export it, or a package is missing.
    """
    if part not in parts_of(model):
        allowed = ", ".join(parts_of(model))
        raise UserError(f"{type(model).__name__} has no {part} to export; it has: {allowed}")
    write = _write_torchscript if file_format == "torchscript" else _write_onnx
    if part == "detector":
        return _export_detector(model, write, file_format, path, images)

    wrapper: nn.Module
    shapes: list[tuple[int, ...]]
    free: tuple[int, ...]
    if part == "backbone":
        wrapper = _Backbone(model.backbone).eval()
        step = max(model.backbone.size_divisibility, 32)
        shapes = [(n, 3, h * step, w * step) for n, h, w in ((2, 4, 5), (1, 3, 7), (1, 6, 3))]
        name, free = "image", (0, 2, 3)
    else:
        head = model.roi_heads.keypoint_head
        wrapper = _KeypointHead(head).eval()
        side = model.roi_heads.keypoint_pooler.output_size
        shapes = [(n, _in_channels(head), *side) for n in _REGIONS]
        name, free = "regions", (0,)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    # Two regions for the trace: one that sees 0 or 1 of something may keep that for good.
    example = inputs[0] if part == "backbone" else torch.randn(2, *shapes[0][1:])
    run = write(wrapper, example, path, name=name, free=free)
    return [_check(part, wrapper, run, x) for x in inputs]


def export_weights(model: nn.Module, *, path: Path) -> list[Check]:
    """Write the weights of `model` to `path` as safetensors, which ``MODEL.WEIGHTS`` takes.

    Tensors that share memory are written once each, so that any reader finds all names.

    Raises:
        UserError: the file cannot be written.
    """
    state = {
        k: v.cpu().clone(memory_format=torch.contiguous_format)
        for k, v in model.state_dict().items()
    }
    try:
        save_file(state, path)
    except (OSError, SafetensorError) as error:
        reason = str(error).partition(" at path ")[0]  # which is that of a temporary file
        raise UserError(f"cannot write {path}: {reason}") from error
    written = load_file(path)
    same = written.keys() == state.keys() and all(written[k].equal(state[k]) for k in state)
    difference = 0.0 if same else float("inf")
    return [Check(part="weights", input="", found=f"{len(state)} tensors", error=difference)]


def _export_detector(
    model: nn.Module,
    write: Callable[..., Run],
    file_format: str,
    path: Path,
    images: Sequence[Tensor],
) -> list[Check]:
    detector = _Detector(model, for_onnx=file_format == "onnx").eval()
    run = write(detector, images[0], path, name="image", free=(1, 2), traced=True)
    checks = [_check("detector", detector, run, image) for image in images]
    # An image in which a given model finds nothing is hard to come by: a threshold that no score
    # can pass makes one of any.
    detector.model.roi_heads.box_predictor.test_score_thresh = 1.0
    blind_path = path.with_name(f"blind-{path.name}")
    try:
        run = write(detector, images[0], blind_path, name="image", free=(1, 2), traced=True)
        checks += [_check("detector that finds nothing", detector, run, images[-1])]
    finally:
        blind_path.unlink(missing_ok=True)
    return checks


class _Backbone(nn.Module):
    backbone: nn.Module

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Outputs:
        return dict(self.backbone(image))


class _KeypointHead(nn.Module):
    head: Any

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, regions: Tensor) -> Outputs:
        return {"heatmaps": self.head.layers(regions)}


class _Detector(nn.Module):
    """A copy of a GeneralizedRCNN that takes one image and returns plain tensors."""

    model: Any

    def __init__(self, model: nn.Module, *, for_onnx: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        if for_onnx:
            heads = self.model.roi_heads
            for name in ("box_pooler", "mask_pooler", "keypoint_pooler"):
                if hasattr(heads, name):
                    setattr(heads, name, _PoolerOfKnownRank(getattr(heads, name)))
            for name in ("mask_head", "keypoint_head"):
                if hasattr(heads, name):
                    head = getattr(heads, name)
                    head.layers = _with_an_empty_region(head.layers)
            if hasattr(heads, "keypoint_head"):
                heads.keypoint_head = _HeatmapsOnly(heads.keypoint_head)

    def forward(self, image: Tensor) -> Outputs:
        with torch.no_grad(), patch_builtin_len():
            (found,) = self.model.inference([{"image": image}], do_postprocess=False)
        fields = found.get_fields()
        return {k: v.tensor if isinstance(v, Boxes) else v for k, v in fields.items()}


class _PoolerOfKnownRank(nn.Module):
    """Detectron2's pooler assigns by index, after which ONNX's exporter has lost the rank."""

    pooler: Any

    def __init__(self, pooler: nn.Module) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        channels = features[0].shape[1]
        return self.pooler(features, boxes).reshape(-1, channels, *self.pooler.output_size)


def _with_an_empty_region(layers: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`layers` of a head with an empty region added to its input, and that result dropped again.

    The reshapes of blocks and group norms, as the older exporter writes them, cannot be run for
    no region at all.
    """

    def run(regions: Tensor) -> Tensor:
        return layers(F.pad(regions, (0, 0) * 3 + (0, 1)))[:-1]

    return run


class _HeatmapsOnly(nn.Module):
    """The keypoint head up to its logits: what follows is a loop over regions."""

    head: Any

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, regions: Tensor, instances: list[Instances]) -> list[Instances]:
        instances[0].pred_keypoint_heatmaps = self.head.layers(regions)
        return instances


def _in_channels(head: nn.Module) -> int:
    return next(m for m in head.modules() if isinstance(m, nn.Conv2d)).in_channels


def _write_torchscript(
    module: nn.Module, example: Tensor, path: Path, *, name: str, free, traced: bool = True
) -> Run:
    with warnings.catch_warnings(), torch.no_grad():
        # A trace warns of each branch and each number that it fixes: the check is what counts.
        warnings.simplefilter("ignore")
        # strict=False allows a dict as output.
        torch.jit.trace(module, example, strict=False, check_trace=False).save(str(path))
        loaded = torch.jit.load(str(path))

    def run(x: Tensor) -> Outputs:
        with torch.no_grad():
            return loaded(x)

    return run


def _write_onnx(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    name: str,
    free: Sequence[int],
    traced: bool = False,
) -> Run:
    """`free` are the axes of any size; `traced` takes torch's older exporter."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {error.name}: pip install 'nl_detectron[export]'"
        ) from error
    with torch.no_grad():
        outputs = list(module(example))
    how: dict
    if traced:
        how = {"dynamo": False, "dynamic_axes": {name: {axis: f"axis{axis}" for axis in free}}}
    else:
        axes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
        how = {"dynamo": True, "dynamic_shapes": (axes,), "external_data": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                (example,),
                str(path),
                input_names=[name],
                output_names=outputs,
                opset_version=_ONNX_VERSION,
                verbose=False,
                **how,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f"torch cannot export {path.stem} to ONNX: {_cause(error)}") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Outputs:
        values = session.run(outputs, {name: x.numpy()})
        return {k: torch.from_numpy(v) for k, v in zip(outputs, values, strict=True)}

    return run


def _cause(error: BaseException) -> str:
    """The first line of the innermost error: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check(part: str, module: nn.Module, run: Run, x: Tensor) -> Check:
    with torch.no_grad():
        expected = module(x)
    actual = run(x)
    found = ""
    if "scores" in expected:
        found = f"{len(expected['scores'])} found"
        actual = _in_order_of(expected, actual)
    error = max((_difference(expected[k], actual[k]) for k in expected), default=0.0)
    return Check(part=part, input=" x ".join(map(str, x.shape)), found=found, error=error)


def _in_order_of(expected: Outputs, actual: Outputs) -> Outputs:
    """`actual`'s detections in the order of `expected`, as equal scores may come in any order.

    Each takes the nearest box of its class; where that is not one to one the order is left.
    """
    if len(expected["scores"]) != len(actual["scores"]) or not len(expected["scores"]):
        return actual
    distance = torch.cdist(expected["pred_boxes"], actual["pred_boxes"], p=1)
    distance[expected["pred_classes"][:, None] != actual["pred_classes"]] = float("inf")
    order = distance.argmin(dim=1)
    if len(order.unique()) < len(order):
        return actual
    return {name: value[order] for name, value in actual.items()}


def _difference(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    expected, actual = expected.double(), actual.double()
    difference = (expected - actual).abs().max() / expected.abs().max().clamp(min=1e-12)
    # NaN compares as neither small nor large: as an error it is infinite.
    return float(difference.nan_to_num(nan=float("inf")))
