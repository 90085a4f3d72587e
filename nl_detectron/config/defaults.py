"""The config keys that this package adds, and their defaults.

```yaml
MODEL:
  RESNETS:
    NON_LOCAL:
      AFTER_BLOCKS: [[], [], [], []]   # residual blocks of res2 to res5 that a non-local block
                                       # follows, counted from 0; negative numbers count from the
                                       # end, and -2 is before the last
      PAIRWISE: embedded_gaussian      # gaussian, embedded_gaussian, dot_product, concatenation
      REDUCTION: 2                     # inner width is channels / REDUCTION
      SUBSAMPLE: 2                     # stride of the max-pooling before phi and g; 1 is off
      NORM: BN                         # norm after W_z, as in detectron2's get_norm; "" is none
      SCALE: True                      # divide the product of the softmax forms by the square root
                                       # of its width
      INIT_STD: 0.01                   # standard deviation of the initial weights. The official
                                       # 0.01 suits 1024 channels; with fewer, a larger value learns
                                       # sooner, up to 2 / sqrt(channels)
      AXES: spacetime                  # video positions that attend to each other: spacetime;
                                       # space, within a frame; time, at one place
      GROUP_FRAMES: [0, 0, 0, 0]       # time steps of res2 to res5 that attend to each other; 0 is
                                       # the whole clip
  ROI_KEYPOINT_HEAD:
    NON_LOCAL:
      EVERY_CONVS: 0                   # number of convolutions between blocks; 0 is no block
      ...                              # and PAIRWISE to INIT_STD as above
  VIDEO_RESNET:                        # of build_nonlocal_video_resnet_backbone, with RESNETS
    TEMPORAL: c2d                      # c2d, i3d_3x1x1, i3d_3x3x3
    STEM_TIME_STRIDE: 2                # time stride of conv1 and of pool1; pool2, before
                                       # res3, has 2 in any case
    POOLING: official                  # official (224 pixels are 55 in res2) or paper (56)
  VIDEO_CLASSIFIER:
    NUM_CLASSES: 400                   # class count of the dataset
    DROPOUT: 0.5                       # dropout before the linear layer
    MULTI_LABEL: False                 # True uses a sigmoid per class instead of a softmax
INPUT:
  CLIP:
    FRAMES: 32                         # frames per clip
    STRIDE: 2                          # distance between these frames in the video
DATASETS:
  REGISTER: []                         # your own datasets, for TRAIN and TEST. Images: {name: NAME,
                                       # json_file: FILE, image_root: FOLDER}, with keypoint_names
                                       # and keypoint_flip_map; videos: {name: NAME, root: FOLDER},
                                       # with list_file, classes, multi_label, folder_rate
DATALOADER:
  SKIP_BAD_VIDEOS: False               # True skips unreadable videos
  MAX_BAD_VIDEOS: 0.05                 # largest share of skipped videos; a run stops above it
SOLVER:
  ACCUMULATE_STEPS: 1                  # batches of IMS_PER_BATCH per update
TEST:
  CLIPS: 10                            # clips per video, evenly spread
  CROPS: 3                             # crops per clip, along the longer side
  VIEW_POOLING: mean                   # pooling of the views' probabilities: mean or max
  ATTENTION_SAMPLES: 0                 # test samples on which every evaluation measures the blocks;
                                       # 0 is off
WANDB:
  PROJECT: ""                          # project of Weights & Biases for the curves; "" is off
```
"""

from dataclasses import dataclass, fields
from typing import Any, Self

from detectron2.config import CfgNode

BACKBONE_KEY = "MODEL.RESNETS.NON_LOCAL"
HEAD_KEY = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL"
STAGES = ("res2", "res3", "res4", "res5")
CLASSES_KEYS = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
    "VideoClassifier": "MODEL.VIDEO_CLASSIFIER.NUM_CLASSES",
}
"""The key of the number of classes for each ``MODEL.META_ARCHITECTURE``."""


@dataclass(frozen=True, kw_only=True)
class NonLocalOptions:
    """Options of a block at any place: PAIRWISE to INIT_STD of the module's table."""

    pairwise: str = "embedded_gaussian"
    reduction: int = 2
    subsample: int = 2
    norm: str = "BN"
    scale: bool = True
    init_std: float = 0.01

    @classmethod
    def from_config(cls, node: CfgNode) -> Self:
        return cls(**{field.name: node[field.name.upper()] for field in fields(cls)})

    @classmethod
    def default_node(cls) -> dict[str, Any]:
        return {field.name.upper(): field.default for field in fields(cls)}


def add_nonlocal_config(cfg: CfgNode) -> None:
    """Add this package's keys to `cfg`. With their defaults every model is built as before."""
    defaults = NonLocalOptions.default_node()
    cfg.MODEL.RESNETS.NON_LOCAL = CfgNode(
        {
            "AFTER_BLOCKS": [[] for _ in STAGES],
            **defaults,
            "AXES": "spacetime",
            "GROUP_FRAMES": [0 for _ in STAGES],
        }
    )
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL = CfgNode({"EVERY_CONVS": 0, **defaults})
    cfg.MODEL.VIDEO_RESNET = CfgNode(
        {"TEMPORAL": "c2d", "STEM_TIME_STRIDE": 2, "POOLING": "official"}
    )
    cfg.MODEL.VIDEO_CLASSIFIER = CfgNode({"NUM_CLASSES": 400, "DROPOUT": 0.5, "MULTI_LABEL": False})
    cfg.INPUT.CLIP = CfgNode({"FRAMES": 32, "STRIDE": 2})
    cfg.TEST.CLIPS = 10
    cfg.TEST.CROPS = 3
    cfg.TEST.VIEW_POOLING = "mean"
    cfg.DATASETS.REGISTER = []
    cfg.TEST.ATTENTION_SAMPLES = 0
    cfg.DATALOADER.SKIP_BAD_VIDEOS = False
    cfg.DATALOADER.MAX_BAD_VIDEOS = 0.05
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    cfg.WANDB = CfgNode({"PROJECT": ""})
