"""C2D and I3D: ResNets of clips (sections 3.3 and 4.1, Table 1), with non-local blocks."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ResNet
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import BACKBONE_KEY, STAGES, builds_nonlocal_blocks
from ...layers.batch_norm import FrozenBatchNorm3d, build_norm_3d
from ...utils.errors import ConfigError
from .resnet import add_from_config

RESIDUAL_BLOCKS = {  # of res2 to res5
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
Size = tuple[int, int, int]  # T, H, W


class Conv3d(nn.Conv3d):
    """A convolution without bias and its norm, which is called `norm`, as in Detectron2.

    `stride` and `dilation` are of space; time has neither here.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Size,
        *,
        norm: str,
        stride: int = 1,
        time_stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride=(time_stride, stride, stride),
            padding=(kernel[0] // 2, dilation * (kernel[1] // 2), dilation * (kernel[2] // 2)),
            dilation=(1, dilation, dilation),
            groups=groups,
            bias=False,
        )
        self.norm = build_norm_3d(norm, out_channels)
        c2_msra_fill(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class VideoBlock(CNNBlockBase):
    """Base class of stem and residual blocks, with freezing of 3-D norms."""

    def freeze(self) -> "VideoBlock":
        """Make all parameters fixed and batch norms frozen ones; return the block."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm3d.convert_frozen_batchnorm(self)
        return self


class VideoStem(VideoBlock):
    """conv1 and pool1: (N, C, T, H, W) to (N, C', T / time_stride^2, H / 4, W / 4).

    Args:
        time_kernel: planes of conv1's 7x7 kernel: 1 for C2D, 5 for I3D.
        time_stride: time stride of conv1 and of pool1: 2 in the paper's networks, 1 in the
            official code's for 8 and for 32x4 frames.
        pooling: see `VideoResNet`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_kernel: int,
        time_stride: int,
        pooling: str,
        norm: str,
    ) -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = Conv3d(
            in_channels,
            out_channels,
            (time_kernel, 7, 7),
            norm=norm,
            stride=2,
            time_stride=time_stride,
        )
        self.pool1 = _max_pool(pooling, time_stride=time_stride, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool1(F.relu_(self.conv1(x)))


def _max_pool(pooling: str, *, time_stride: int, stride: int) -> nn.MaxPool3d:
    """Build a max-pooling over the axes that have a stride.

    The paper's windows are 3 wide and start at the border. The official code's are 2 wide in time
    and 3 in space, without padding.
    """
    paper = pooling == "paper"
    time = 1 if time_stride == 1 else 3 if paper else 2
    side = 1 if stride == 1 else 3
    return nn.MaxPool3d(
        (time, side, side),
        stride=(time_stride, stride, stride),
        padding=(time // 2, side // 2, side // 2) if paper else (0, 0, 0),
        dilation=(1, 1, 1),
    )


class VideoResidualBlock(VideoBlock):
    """The residual block of Table 1: 1x1x1, 1x3x3, 1x1x1; or a basic one: 1x3x3, 1x3x3.

    The last norm's scale starts at zero, as in the official code.

    Args:
        bottleneck_channels: channels of the second convolution; None for a basic block, as in
            ResNet-18 and 34, which takes neither `stride_in_1x1`, `groups` nor `dilation`.
        temporal: the first 1x1 convolution is 3x1x1 with "i3d_3x1x1", the first 3x3 convolution
            3x3x3 with "i3d_3x3x3".
        stride: stride over space; time has none.
        stride_in_1x1: put the stride into the first convolution instead of the second.
        norm, groups, dilation: as in Detectron2's block; the last two are the second convolution's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int | None,
        temporal: str,
        stride: int,
        stride_in_1x1: bool,
        norm: str,
        groups: int,
        dilation: int,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = self.conv3 = None
        if in_channels != out_channels:
            self.shortcut = Conv3d(in_channels, out_channels, (1, 1, 1), stride=stride, norm=norm)
        kernel = (3 if temporal == "i3d_3x3x3" else 1, 3, 3)
        if bottleneck_channels is None:
            self.conv1 = Conv3d(in_channels, out_channels, kernel, stride=stride, norm=norm)
            self.conv2 = last = Conv3d(out_channels, out_channels, (1, 3, 3), norm=norm)
        else:
            self.conv1 = Conv3d(
                in_channels,
                bottleneck_channels,
                (3 if temporal == "i3d_3x1x1" else 1, 1, 1),
                stride=stride if stride_in_1x1 else 1,
                norm=norm,
            )
            self.conv2 = Conv3d(
                bottleneck_channels,
                bottleneck_channels,
                kernel,
                stride=1 if stride_in_1x1 else stride,
                norm=norm,
                groups=groups,
                dilation=dilation,
            )
            self.conv3 = last = Conv3d(bottleneck_channels, out_channels, (1, 1, 1), norm=norm)
        # A frozen norm's scale is a buffer, which would stay at zero.
        if isinstance(last.norm.weight, nn.Parameter):
            nn.init.zeros_(last.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu_(self.conv1(x)))
        if self.conv3 is not None:
            y = self.conv3(F.relu_(y))
        return F.relu_(y + (x if self.shortcut is None else self.shortcut(x)))


class VideoResNet(ResNet):
    """Detectron2's ResNet for clips: C2D, or I3D with convolutions along time.

    Input (N, C, T, H, W); output a dict of the features `out_features`, (N, C', T', H', W'). The
    strides in `output_shape` are of space; `time_strides` has those of time by the same names,
    and `output_size` the exact sizes. Weights have the names of Detectron2's ResNet, and
    `add_backbone_blocks` puts blocks into it.

    Args:
        in_channels: C.
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        temporal: "c2d": only the poolings see several frames. "i3d_3x1x1": conv1 is 5x7x7 and
            every other residual block's first 1x1 convolution 3x1x1. "i3d_3x3x3": its 3x3
            convolution is 3x3x3 instead (Table 2e).
        stem_time_stride: time stride of conv1 and of pool1, 2 or 1.
        pooling: "official": pool1 2x3x3 and pool2 2x1x1 without padding, as the released weights
            need: 224 pixels are 55 in res2. "paper": 3x3x3 and 3x1x1 with padding (Table 1), 56
            in res2, as in 2-D ResNets. From res3 on the sizes are the same.
        norm: name for `build_norm_3d`.
        stem_channels, res2_channels, bottleneck_channels, groups, stride_in_1x1, res5_dilation:
            as MODEL.RESNETS has them; `bottleneck_channels` is res2's, and basic blocks have none.
        out_features: among "stem", "res2" to "res5"; later stages are not built.
        freeze_at: freeze the stem (1) and the stages up to res<freeze_at> (2 to 5), with their
            non-local blocks; 0 freezes nothing.

    Raises:
        ValueError: basic blocks do not have `temporal` or `res5_dilation`, or `norm` is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        depth: int = 50,
        temporal: str = "c2d",
        stem_time_stride: int = 2,
        pooling: str = "official",
        norm: str = "BN",
        stem_channels: int = 64,
        res2_channels: int = 256,
        bottleneck_channels: int = 64,
        groups: int = 1,
        stride_in_1x1: bool = False,
        res5_dilation: int = 1,
        out_features: Sequence[str] = ("res5",),
        freeze_at: int = 0,
    ) -> None:
        basic = depth < 50
        if basic and (temporal == "i3d_3x1x1" or res5_dilation > 1):
            raise ValueError(
                f"expected temporal c2d or i3d_3x3x3 and res5_dilation 1 at depth {depth}, got "
                f"{temporal} and {res5_dilation}"
            )
        stem = VideoStem(
            in_channels,
            stem_channels,
            time_kernel=1 if temporal == "c2d" else 5,
            time_stride=stem_time_stride,
            pooling=pooling,
            norm=norm,
        )
        stages, channels = [], stem_channels
        last = max(map(("stem", *STAGES).index, out_features))
        for i, name in enumerate(STAGES[:last]):
            dilation = res5_dilation if name == "res5" else 1
            blocks = []
            for index in range(RESIDUAL_BLOCKS[depth][i]):
                # The official code's choice for any depth: every other block, and all of res2. The
                # paper has one for every two blocks.
                spans_time = name == "res2" or index % 2 == (1 if name == "res5" else 0)
                width = res2_channels * 2**i
                block = VideoResidualBlock(
                    channels,
                    width,
                    bottleneck_channels=None if basic else bottleneck_channels * 2**i,
                    temporal=temporal if spans_time else "c2d",
                    stride=1 if index or name == "res2" or dilation > 1 else 2,
                    stride_in_1x1=stride_in_1x1,
                    norm=norm,
                    groups=groups,
                    dilation=dilation,
                )
                blocks.append(block)
                channels = width
            stages.append(blocks)
        super().__init__(stem, stages, out_features=list(out_features), freeze_at=freeze_at)
        if "res3" in self.stage_names:
            self.pool2 = _max_pool(pooling, time_stride=2, stride=1)
        at_stem = stem_time_stride**2
        self.time_strides = {
            "stem": at_stem,
            "res2": at_stem,
            **dict.fromkeys(STAGES[1:], 2 * at_stem),
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        features = {"stem": x}
        for name in self.stage_names:
            if name == "res3":
                x = self.pool2(x)
            x = features[name] = getattr(self, name)(x)
        return {name: features[name] for name in self._out_features}

    @property
    def strides(self) -> dict[str, int]:
        """Strides over space after the stem and every stage; `time_strides` has those over time."""
        return self._out_feature_strides

    def output_size(self, size: Size) -> dict[str, Size]:
        """Compute (T, H, W) after the stem and every stage, for clips of `size`.

        A value below 1 means that the clip is too small for the network.
        """
        size = _size_after(self.stem.pool1, _size_after(self.stem.conv1, size))
        sizes = {"stem": size}
        for name in self.stage_names:
            if name == "res3":
                size = _size_after(self.pool2, size)
            first = getattr(self, name)[0]
            size = sizes[name] = _size_after(first.conv2, _size_after(first.conv1, size))
        return sizes


def _size_after(layer: Any, size: Size) -> Size:
    steps = zip(size, layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
    t, h, w = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in steps)
    return t, h, w


@BACKBONE_REGISTRY.register()
@builds_nonlocal_blocks
def build_nonlocal_video_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> VideoResNet:
    """Build a `VideoResNet` from MODEL.RESNETS and MODEL.VIDEO_RESNET, with its blocks.

    Raises:
        ConfigError: GROUP_FRAMES do not divide a stage's time steps for INPUT.CLIP.FRAMES.
    """
    resnets, video = cfg.MODEL.RESNETS, cfg.MODEL.VIDEO_RESNET
    resnet = VideoResNet(
        input_shape.channels,
        depth=resnets.DEPTH,
        temporal=video.TEMPORAL,
        stem_time_stride=video.STEM_TIME_STRIDE,
        pooling=video.POOLING,
        norm=resnets.NORM,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        bottleneck_channels=resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP,
        groups=resnets.NUM_GROUPS,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        res5_dilation=resnets.RES5_DILATION,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    add_from_config(cfg, resnet)
    frames = cfg.INPUT.CLIP.FRAMES
    steps = {name: size[0] for name, size in resnet.output_size((frames, 1, 1)).items()}
    for name, group in zip(STAGES, cfg.MODEL.RESNETS.NON_LOCAL.GROUP_FRAMES, strict=True):
        if group and name in steps and steps[name] % group:
            raise ConfigError(
                f"{BACKBONE_KEY}.GROUP_FRAMES has {group} for {name}; allowed: 0, or a divisor of "
                f"its {steps[name]} time steps at INPUT.CLIP.FRAMES {frames}"
            )
    return resnet
