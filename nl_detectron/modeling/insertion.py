"""Non-local blocks in a chain of modules, in a ResNet, or in a whole model."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from detectron2.config import LazyCall
from detectron2.utils.registry import locate
from omegaconf import DictConfig
from torch import nn

from ..config import STAGES, NonLocalOptions
from ..layers import NonLocalBlock

Model = TypeVar("Model", nn.Module, DictConfig)

logger = logging.getLogger(__name__)


def build_block(
    channels: int,
    options: NonLocalOptions,
    *,
    dims: int = 2,
    axes: str = "spacetime",
    frames: int = 0,
) -> NonLocalBlock:
    """Build a block for a map of `channels`; raise ValueError if `options` do not suit that width.

    `dims`, `axes` and `frames` are the block's own arguments.
    """
    if channels % options.reduction:
        raise ValueError(f"REDUCTION is {options.reduction}; allowed: a divisor of {channels}")
    if dims != 3 and (axes != "spacetime" or frames):
        raise ValueError(
            f"AXES and GROUP_FRAMES must be spacetime and 0 for images, got {axes} and {frames}"
        )
    return NonLocalBlock(
        channels,
        inter_channels=channels // options.reduction,
        pairwise=options.pairwise,
        subsample=options.subsample,
        norm=options.norm,
        scale=options.scale,
        init_std=options.init_std,
        dims=dims,
        axes=axes,
        frames=frames,
    )


def insert_after(chain: nn.Sequential, blocks: dict[str, NonLocalBlock], *, where: str) -> None:
    """Insert each block after the child of `chain` with its key's name.

    The new child is called ``nonlocal_after_<name>``; all others keep their names, so that the
    chain's own weights load as before. `where` names the chain in the log line of each block.
    """
    for name, child in list(chain.named_children()):
        # Removing and adding a child moves it to the end, so this loop sets the order.
        delattr(chain, name)
        chain.add_module(name, child)
        if name in blocks:
            block = blocks[name]
            chain.add_module(f"nonlocal_after_{name}", block)
            norm = "none" if block.norm is None else type(block.norm).__name__
            logger.info(
                "Non-local block after %s.%s: %s, norm=%s", where, name, block.extra_repr(), norm
            )


def add_backbone_blocks(
    model: Model,
    *,
    after_blocks: Sequence[Sequence[int]] = ((), (), (-2,), ()),
    options: NonLocalOptions = NonLocalOptions(),  # noqa: B008  (frozen)
    axes: str = "spacetime",
    group_frames: Sequence[int] = (0,) * len(STAGES),
) -> Model:
    """Put non-local blocks into the ResNet of `model`, which is changed and returned.

    Args:
        model: a built model of Detectron2, its backbone or a ResNet; or the lazy config of one. A
            lazy config keeps its keys and gets ``blocks`` next to the ResNet's keys.
        after_blocks: for each of res2 to res5 the residual blocks, counted from 0, that a
            non-local block follows. A negative number counts from the stage's end. The default is
            the paper's single block, right before the last residual block of res4.
        options: options of each block.
        axes: positions of a clip that a position sees; see `NonLocalBlock`.
        group_frames: for each of res2 to res5 the number of consecutive time steps that see each
            other; 0 for all.

    Every weight of `model` keeps its name; a block's are called
    ``<stage>.nonlocal_after_<number>``. The blocks of a frozen stage are frozen.

    Raises:
        ValueError: for a model without a ResNet or with blocks, a stage that it does not have, a
            number outside its stage, two numbers for one place, or options that do not suit the
            stage's width. A lazy config raises it when it is instantiated.
    """
    if isinstance(model, DictConfig):
        _add_to_lazy_config(
            model,
            after_blocks=[list(numbers) for numbers in after_blocks],
            options=LazyCall(NonLocalOptions)(**asdict(options)),
            axes=axes,
            group_frames=list(group_frames),
        )
        return model
    resnet: Any = getattr(model, "backbone", model)
    resnet = getattr(resnet, "bottom_up", resnet)
    if not hasattr(resnet, "stage_names"):
        raise ValueError(f"expected a model with a ResNet, got {type(resnet).__name__}")
    if any(isinstance(module, NonLocalBlock) for module in resnet.modules()):
        raise ValueError("expected a ResNet without non-local blocks, got one that has some")
    for name, numbers, frames in zip(STAGES, after_blocks, group_frames, strict=True):
        if numbers and name not in resnet.stage_names:
            built = ", ".join(resnet.stage_names)
            raise ValueError(f"AFTER_BLOCKS must have blocks in {built} only, got some in {name}")
        if numbers:
            _add_to_stage(getattr(resnet, name), name, numbers, options, axes=axes, frames=frames)
    return model


def _add_to_stage(
    stage: Any,  # a Sequential of residual blocks
    name: str,
    numbers: Sequence[int],
    options: NonLocalOptions,
    **of_clips: Any,
) -> None:
    count = len(stage)
    places = {number % count for number in numbers}
    if len(places) < len(numbers) or not -count <= min(numbers) <= max(numbers) < count:
        raise ValueError(
            f"AFTER_BLOCKS has {list(numbers)} for {name}; allowed: {-count} to {count - 1}, each "
            "place once"
        )
    parameters = list(stage.parameters())
    dims = max(parameter.dim() for parameter in parameters) - 2  # a convolution's weight
    blocks = {
        str(i): build_block(stage[i].out_channels, options, dims=dims, **of_clips) for i in places
    }
    insert_after(stage, blocks, where=name)
    for block in blocks.values():
        block.to(parameters[0]).train(stage.training)
        if not any(parameter.requires_grad for parameter in parameters):
            block.freeze()


def _add_to_lazy_config(model: DictConfig, **blocks: Any) -> None:
    node = model.get("backbone", model)
    node = node.get("bottom_up", node)
    if "blocks" not in node:
        target = node._target_
        node.resnet = (
            target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}"
        )
        node._target_ = build_with_blocks
    node.blocks = LazyCall("builtins.dict")(**blocks)


def build_with_blocks(*, resnet: str, blocks: dict[str, Any], **arguments: Any) -> nn.Module:
    """Build a ResNet by calling `resnet`, a Python name, with `arguments`; add `blocks` to it."""
    return add_backbone_blocks(locate(resnet)(**arguments), **blocks)
