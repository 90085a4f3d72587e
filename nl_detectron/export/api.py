"""Parts of models, their files in TorchScript or ONNX, and the comparison of the two."""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..utils.errors import UserError

logger = logging.getLogger(__name__)

SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx"}
TOLERANCE = 1e-4

# The newest version that torch's older exporter, needed for detectors, can write.
_ONNX_VERSION = 20

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
    found: str = ""
    error: float

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCE


@dataclass(frozen=True)
class Part:
    """A part of a model, or all of it, that can be exported.

    Args:
        name: name of the part and of its file.
        is_in: returns True if a model has the part.
        export: ``(model, path, file_format, inputs)``: write the part, compare file and model.
        inputs: ``(cfg, files)``: real inputs for the comparison, from the files or, with None,
            from an embedded dataset. Parts without it are compared on random numbers.
    """

    name: str
    is_in: Callable[[nn.Module], bool]
    export: Callable[[Any, Path, str, Sequence[Tensor]], list[Check]]
    inputs: Callable[[CfgNode, Sequence[str] | None], list[Tensor]] | None = None


class Wrapper(nn.Module):
    """Base class of functions of a module: its `forward` calls ``self.module``."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module: Any = module


def write(
    module: nn.Module,
    example: Tensor,
    path: Path,
    file_format: str,
    *,
    name: str,
    free: Sequence[int],
    traced: bool = False,
) -> Run:
    """Write `module`, a function of one tensor to a dict of tensors; return a runner of the file.

    Args:
        example: an input; inputs of the file may differ from it in the axes `free`.
        file_format: a key of SUFFIXES. ONNX files are run in onnxruntime.
        name: name of the input.
        traced: use torch's older ONNX exporter, for modules that ``torch.export`` refuses.

    Raises:
        UserError: torch cannot export the module, a package is missing, or `path` cannot be
            written.
    """
    logger.info("Writing %s, which can take minutes", path)
    try:
        path.touch()  # fail now rather than after minutes of export
        if file_format == "torchscript":
            return _write_torchscript(module, example, path)
        return _write_onnx(module, example, path, name=name, free=free, traced=traced)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _write_torchscript(module: nn.Module, example: Tensor, path: Path) -> Run:
    with warnings.catch_warnings(), torch.no_grad():
        # A trace warns about each branch and number that it fixes; the check below decides.
        warnings.simplefilter("ignore")
        # strict=False allows a dict as output.
        traced = torch.jit.trace(module, example, strict=False, check_trace=False)
        buffer = io.BytesIO()  # on a full disk torch's own writer ends the process
        torch.jit.save(traced, buffer)
        path.write_bytes(buffer.getbuffer())
        return torch.jit.load(str(path))


def _write_onnx(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    name: str,
    free: Sequence[int],
    traced: bool,
) -> Run:
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {error.name}: pip install 'nl_detectron[export]'"
        ) from error
    with torch.no_grad():
        outputs = list(module(example))
    axes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    how: dict[str, Any] = {"dynamo": True, "dynamic_shapes": (axes,), "external_data": False}
    if traced:
        how = {"dynamo": False, "dynamic_axes": {name: {axis: f"axis{axis}" for axis in free}}}
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
                verbose=not traced,
                **how,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f"torch cannot export {path.stem} to ONNX: {_cause(error)}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )

    def run(x: Tensor) -> Outputs:
        values = session.run(outputs, {name: x.numpy()})
        return {k: torch.from_numpy(v) for k, v in zip(outputs, values, strict=True)}

    return run


def _cause(error: BaseException) -> str:
    """Return the first line of the innermost error, without torch's pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def check(
    part: str,
    module: nn.Module,
    run: Run,
    x: Tensor,
    *,
    align: Callable[[Outputs, Outputs], Outputs] | None = None,
    found: Callable[[Outputs], str] | None = None,
) -> Check:
    """Return the comparison of a file with its module on `x`.

    Args:
        run: the file, as `write` returns it.
        align: ``(expected, actual)``: `actual` in the order of `expected`.
        found: describes the module's outputs for the report.
    """
    shape = " x ".join(map(str, x.shape))
    logger.info("Comparing the file of the %s with the model on %s", part, shape)
    with torch.no_grad():
        expected, actual = module(x), run(x)
    if align is not None:
        actual = align(expected, actual)
    return Check(
        part=part,
        input=shape,
        found="" if found is None else found(expected),
        error=max((_difference(expected[k], actual[k]) for k in expected), default=0.0),
    )


def _difference(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    expected, actual = expected.double(), actual.double()
    difference = (expected - actual).abs().max() / expected.abs().max().clamp(min=1e-12)
    # NaN compares as neither small nor large: as an error it is infinite.
    return float(difference.nan_to_num(nan=float("inf")))
