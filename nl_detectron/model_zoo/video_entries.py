"""The zoo's networks of clips: Kinetics-400 and Charades."""

import re
from pathlib import Path

from .entry import Entry, Metric, Results

TABLE_2A = "Table 2a: form of f"
TABLE_2B = "Table 2b: stage"
TABLE_2C = "Table 2c: number of blocks"
TABLE_2D = "Table 2d: space, time and spacetime"
TABLE_2E = "Table 2e: non-local blocks and 3-D convolutions"
TABLE_2F = "Table 2f: non-local I3D"
TABLE_2G = "Table 2g: 128 frames"
TABLE_3 = "Table 3: the best networks on Kinetics"
TABLE_4 = "Table 4: Charades"
FEWER_FRAMES = "The official code's clips of fewer frames"

VIDEO = "video"
ACCURACY = Metric(name="video", key="video", columns=("top1", "top5"))
MEAN_AP = Metric(name="actions", key="video", columns=("mAP",))


class VideoEntry(Entry):
    """A classifier of videos, measured by accuracy on Kinetics-400 or by mAP on Charades."""

    @property
    def task(self) -> str:
        return VIDEO

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (MEAN_AP,) if self._is_charades else (ACCURACY,)

    @property
    def model(self) -> str:
        """Network and clip, frames by stride, e.g. ``I3D R50, 32x2``."""
        name = self._name
        return f"{_network(name['network'])} R{name['depth']}, {name['clip']}"

    @property
    def schedule(self) -> str:
        """``400k`` for Kinetics, ``200k`` for Charades."""
        return "200k" if self._is_charades else "400k"

    @property
    def row_name(self) -> str:
        """E.g. ``C2D-R50``, ``C2D-R50-NL1-gaussian``, ``Charades-I3D-R101-128x1``.

        The clip is left out where it is the paper's short one, 32x2.
        """
        name = self._name
        parts = ["Charades"] if self._is_charades else []
        parts += [_network(name["network"]).replace(" ", "-"), f"R{name['depth']}"]
        parts += [name["blocks"].replace("_", "-")] if name["blocks"] else []
        parts += [name["clip"]] if name["clip"] != "32x2" else []
        return "-".join(parts)

    @property
    def _is_charades(self) -> bool:
        return self.config.startswith("Charades/")

    @property
    def _name(self) -> re.Match[str]:
        """The parts of the config's file name."""
        pattern = (
            r"(?P<network>c2d|i3d|i3d_3x3x3)_R_(?P<depth>\d+)_"
            r"((?P<blocks>NL.*)_)?(?P<clip>\d+x\d+)\.yaml"
        )
        match = re.fullmatch(pattern, Path(self.config).name)
        if match is None:
            raise ValueError(f"{self.config} does not follow the pattern of the zoo's names")
        return match


def _network(name: str) -> str:
    kind, _, kernel = name.partition("_")
    return f"{kind.upper()} {kernel}".strip()


def _accuracy(top1: float, top5: float) -> Results:
    return Results(video=(top1, top5))


def _mean_ap(value: float) -> Results:
    return Results(actions=(value,))


_C2D_R50 = "Kinetics/c2d_R_50_32x2.yaml"
_C2D_R101 = "Kinetics/c2d_R_101_32x2.yaml"
_FIVE = "2 in res3, 3 in res4"
_TEN = "4 in res3, 6 in res4"

# Sources. Paper: arXiv 1711.07971, Tables 2 and 4. Official: the README of its code,
# facebookresearch/video-nonlocal-net.
VIDEO_ENTRIES: tuple[Entry, ...] = (
    VideoEntry(
        config=_C2D_R50,
        section=TABLE_2C,
        paper=_accuracy(71.8, 89.7),
        official=_accuracy(72.0, 90.0),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_32x2.yaml",
        section=TABLE_2C,
        blocks="1 in res4",
        baseline=_C2D_R50,
        paper=_accuracy(72.7, 90.5),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL5_32x2.yaml",
        section=TABLE_2C,
        blocks=_FIVE,
        baseline=_C2D_R50,
        paper=_accuracy(73.8, 91.0),
        official=_accuracy(73.9, 91.0),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL10_32x2.yaml",
        section=TABLE_2C,
        blocks=_TEN,
        baseline=_C2D_R50,
        paper=_accuracy(74.3, 91.2),
    ),
    VideoEntry(config=_C2D_R101, section=TABLE_2C, paper=_accuracy(73.1, 91.0)),
    VideoEntry(
        config="Kinetics/c2d_R_101_NL1_32x2.yaml",
        section=TABLE_2C,
        blocks="1 in res4",
        baseline=_C2D_R101,
        paper=_accuracy(74.3, 91.3),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_101_NL5_32x2.yaml",
        section=TABLE_2C,
        blocks=_FIVE,
        baseline=_C2D_R101,
        paper=_accuracy(75.1, 91.7),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_101_NL10_32x2.yaml",
        section=TABLE_2C,
        blocks=_TEN,
        baseline=_C2D_R101,
        paper=_accuracy(75.1, 91.6),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_gaussian_32x2.yaml",
        section=TABLE_2A,
        blocks="1 in res4, Gaussian",
        baseline=_C2D_R50,
        paper=_accuracy(72.5, 90.2),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_embedded_gaussian_32x2.yaml",
        section=TABLE_2A,
        blocks="1 in res4, embedded Gaussian",
        baseline=_C2D_R50,
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_dot_product_32x2.yaml",
        section=TABLE_2A,
        blocks="1 in res4, dot product",
        baseline=_C2D_R50,
        paper=_accuracy(72.9, 90.3),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_concatenation_32x2.yaml",
        section=TABLE_2A,
        blocks="1 in res4, concatenation",
        baseline=_C2D_R50,
        paper=_accuracy(72.8, 90.5),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_res2_32x2.yaml",
        section=TABLE_2B,
        blocks="1 in res2",
        baseline=_C2D_R50,
        paper=_accuracy(72.7, 90.3),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_res3_32x2.yaml",
        section=TABLE_2B,
        blocks="1 in res3",
        baseline=_C2D_R50,
        paper=_accuracy(72.9, 90.4),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_res4_32x2.yaml",
        section=TABLE_2B,
        blocks="1 in res4",
        baseline=_C2D_R50,
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL1_res5_32x2.yaml",
        section=TABLE_2B,
        blocks="1 in res5",
        baseline=_C2D_R50,
        paper=_accuracy(72.3, 90.1),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL5_space_32x2.yaml",
        section=TABLE_2D,
        blocks=f"{_FIVE}, space only",
        baseline=_C2D_R50,
        paper=_accuracy(72.9, 90.8),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL5_time_32x2.yaml",
        section=TABLE_2D,
        blocks=f"{_FIVE}, time only",
        baseline=_C2D_R50,
        paper=_accuracy(73.1, 90.5),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_101_NL5_space_32x2.yaml",
        section=TABLE_2D,
        blocks=f"{_FIVE}, space only",
        baseline=_C2D_R101,
        paper=_accuracy(74.4, 91.3),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_101_NL5_time_32x2.yaml",
        section=TABLE_2D,
        blocks=f"{_FIVE}, time only",
        baseline=_C2D_R101,
        paper=_accuracy(74.4, 90.5),
    ),
    VideoEntry(
        config="Kinetics/i3d_3x3x3_R_101_32x2.yaml",
        section=TABLE_2E,
        paper=_accuracy(74.1, 91.2),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_32x2.yaml",
        section=TABLE_2F,
        paper=_accuracy(73.3, 90.7),
        official=_accuracy(73.6, 90.8),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_NL5_32x2.yaml",
        section=TABLE_2F,
        blocks=_FIVE,
        baseline="Kinetics/i3d_R_50_32x2.yaml",
        paper=_accuracy(74.9, 91.6),
        official=_accuracy(74.9, 91.6),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_101_32x2.yaml",
        section=TABLE_2F,
        paper=_accuracy(74.4, 91.1),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_101_NL5_32x2.yaml",
        section=TABLE_2F,
        blocks=_FIVE,
        baseline="Kinetics/i3d_R_101_32x2.yaml",
        paper=_accuracy(76.0, 92.1),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_128x1.yaml",
        section=TABLE_2G,
        paper=_accuracy(73.8, 91.2),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_128x1.yaml",
        section=TABLE_2G,
        paper=_accuracy(74.9, 91.7),
        official=_accuracy(75.2, 92.0),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_NL5_128x1.yaml",
        section=TABLE_2G,
        blocks=_FIVE,
        baseline="Kinetics/i3d_R_50_128x1.yaml",
        paper=_accuracy(76.5, 92.6),
        official=_accuracy(76.5, 92.7),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_101_128x1.yaml",
        section=TABLE_2G,
        paper=_accuracy(75.3, 91.8),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_101_NL5_128x1.yaml",
        section=TABLE_2G,
        blocks=_FIVE,
        baseline="Kinetics/c2d_R_101_128x1.yaml",
    ),
    VideoEntry(
        config="Kinetics/i3d_R_101_128x1.yaml",
        section=TABLE_2G,
        paper=_accuracy(76.4, 92.7),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_101_NL5_128x1.yaml",
        section=TABLE_2G,
        blocks=_FIVE,
        baseline="Kinetics/i3d_R_101_128x1.yaml",
        paper=_accuracy(77.7, 93.3),
    ),
    VideoEntry(
        config="Charades/i3d_R_101_128x1.yaml",
        section=TABLE_4,
        paper=_mean_ap(35.5),
    ),
    VideoEntry(
        config="Charades/i3d_R_101_NL5_128x1.yaml",
        section=TABLE_4,
        blocks=_FIVE,
        baseline="Charades/i3d_R_101_128x1.yaml",
        paper=_mean_ap(37.5),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_8x8.yaml",
        section=FEWER_FRAMES,
        official=_accuracy(71.9, 90.0),
    ),
    VideoEntry(
        config="Kinetics/c2d_R_50_NL5_8x8.yaml",
        section=FEWER_FRAMES,
        blocks=_FIVE,
        baseline="Kinetics/c2d_R_50_8x8.yaml",
        official=_accuracy(74.4, 91.4),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_8x8.yaml",
        section=FEWER_FRAMES,
        official=_accuracy(73.4, 90.9),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_NL5_8x8.yaml",
        section=FEWER_FRAMES,
        blocks=_FIVE,
        baseline="Kinetics/i3d_R_50_8x8.yaml",
        official=_accuracy(74.7, 91.6),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_32x4.yaml",
        section=FEWER_FRAMES,
        official=_accuracy(75.5, 92.0),
    ),
    VideoEntry(
        config="Kinetics/i3d_R_50_NL5_32x4.yaml",
        section=FEWER_FRAMES,
        blocks=_FIVE,
        baseline="Kinetics/i3d_R_50_32x4.yaml",
        official=_accuracy(76.5, 92.6),
    ),
)
