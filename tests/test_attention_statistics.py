"""Statistics of attention against their formulas on explicit maps, in float64."""

from argparse import Namespace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from scipy.spatial.distance import cosine, jensenshannon

from nl_detectron import add_nonlocal_config
from nl_detectron.analysis.attention import BlockInput, ImageAttention, attention_weights
from nl_detectron.analysis.grid import Axis, Grid
from nl_detectron.analysis.statistics import (
    SHARES,
    AttentionStatistics,
    BlockStatistics,
    Region,
    detected_regions,
    given_regions,
)
from nl_detectron.data.datasets.synthetic import clips
from nl_detectron.engine import Trainer
from nl_detectron.evaluation.attention_evaluation import evaluate_attention
from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock
from nl_detectron.modeling import attention_rows
from nl_detectron.utils.errors import UserError
from nl_detectron.visualization import draw_statistics

STEPS = (2.0, 5.0, 3.0)  # frames and pixels of the image from one position to the next


def make_block(**options: Any) -> NonLocalBlock:
    torch.manual_seed(0)
    block = NonLocalBlock(6, norm="", **options).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return block


def seen_by(block: NonLocalBlock, x: torch.Tensor, *, padding: float = 0.0) -> BlockInput:
    """A block's input; `padding` pixels at the right are outside of the image."""
    shape = (1, *x.shape[1:])[-3:]
    side = 1 if block.axes == "time" else block.subsample
    time, y, xs = (
        Axis(start=0.0, step=step, length=n, end=n * step - cut, subsample=s)
        for step, n, s, cut in zip(STEPS, shape, (1, side, side), (0, 0, padding), strict=True)
    )
    return BlockInput(name="b", block=block, features=x, grid=Grid(time=time, y=y, x=xs))


def explicit_map(block: NonLocalBlock, x: torch.Tensor) -> tuple[np.ndarray, Any, Any]:
    """Return the whole map, NaN if i does not see j, and (t, row, column) of i and of j."""
    time, *sides = (1, *x.shape[1:])[-3:]
    side = 1 if block.axes == "time" else block.subsample
    queries = np.array(list(np.ndindex(time, *sides)))
    keys = np.array(list(np.ndindex(time, *(-(-length // side) for length in sides))))
    sees = np.ones((len(queries), len(keys)), dtype=bool)
    group = 1 if block.axes == "space" else block.frames
    if group:
        sees &= queries[:, None, 0] // group == keys[None, :, 0] // group
    if block.axes == "time":
        sees &= (queries[:, None, 1:] == keys[None, :, 1:]).all(-1)
    weights = np.full(sees.shape, np.nan)
    weights[sees] = block.attention_map(x[None]).detach().numpy().ravel()
    return weights, queries, keys


OPTIONS = [
    {"dims": 1, "subsample": 2},
    {"dims": 2, "subsample": 1},
    {"dims": 2, "subsample": 3},
    {"dims": 3},
    {"dims": 3, "frames": 2},
    {"dims": 3, "axes": "space"},
    {"dims": 3, "axes": "time"},
    {"dims": 3, "axes": "time", "frames": 2},
]


def inputs(dims: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    shape = {1: (9,), 2: (4, 7), 3: (4, 3, 3)}[dims]
    return [torch.randn(6, *shape, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("pairwise", PAIRWISE_FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rows_match_explicit_map(pairwise: str, options: dict[str, Any]) -> None:
    block, x = make_block(pairwise=pairwise, **options), inputs(options["dims"])[0]
    expected, *_ = explicit_map(block, x)
    positions = [len(expected) - 1, 0, 5, 5, 3]
    weights, sees = attention_weights(block, x, positions)
    np.testing.assert_allclose(weights.flatten(1), np.nan_to_num(expected[positions]), atol=1e-12)
    assert (sees.flatten(1).numpy() == ~np.isnan(expected[positions])).all()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float(jensenshannon(p, q, base=2) ** 2)


@pytest.mark.parametrize("pieces", [1, 2**20])
@pytest.mark.parametrize("pairwise", PAIRWISE_FORMS)
@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_statistics_match_formulas(
    pairwise: str, options: dict[str, Any], pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_MAX_ELEMENTS", pieces), ("_QUERIES", 99), ("_PARTS", 99)):
        monkeypatch.setattr(attention_rows, name, value)
    block = make_block(pairwise=pairwise, **options)
    padding = 4.0 if block.dims == 2 else 0.0  # the last column of positions begins outside
    found: dict[str, list[Any]] = {}
    samples = []
    statistics = BlockStatistics("b", pairwise)
    for x in inputs(block.dims):
        statistics.add(seen_by(block, x, padding=padding))
        weights, queries, keys = explicit_map(block, x)
        z = block(x[None])[0].detach()
        values: dict[str, list[float]] = {"residual_ratio": [float((z - x).norm() / x.norm())]}
        rows = {}
        side = 1 if block.axes == "time" else block.subsample
        size = queries.max(0) + 1
        sides = np.array([1, side, side])
        # A window may be partial: its center is that of the positions in it.
        centers = [
            STEPS * (np.minimum(key * sides + sides, size) + key * sides) / 2 for key in keys
        ]
        for query, row in zip(queries, weights, strict=True):
            if query[2] * STEPS[2] >= size[2] * STEPS[2] - padding:
                continue
            sizes = np.abs(row[~np.isnan(row)])
            p = sizes / sizes.sum() if sizes.any() else np.full(len(sizes), 1 / len(sizes))
            away = np.array(centers)[~np.isnan(row)] - STEPS * (query + 0.5)
            pixels = np.hypot(away[:, 1], away[:, 2])
            rows[tuple(query)] = (tuple(np.flatnonzero(~np.isnan(row))), p)
            ordered = sorted(p, reverse=True)
            count = next(k for k in range(1, len(p) + 1) if sum(ordered[:k]) >= 0.9 - 1e-9)
            for name, value, even in (
                ("entropy", -sum(v * np.log(v) for v in p if v > 0), np.log(len(p))),
                ("positions_90", count, np.ceil(0.9 * len(p))),
                ("distance", p @ pixels, pixels.mean()),
                ("frames", p @ np.abs(away[:, 0]), np.abs(away[:, 0]).mean()),
            ):
                values.setdefault(name, []).append(value)
                values.setdefault(f"{name}_uniform", []).append(even)
        for name, distance in (("divergence", divergence), ("cosine", cosine)):
            values[name] = [
                distance(p, q) for (a, p), (b, q) in combinations(rows.values(), 2) if a == b
            ]
        for name, of_sample in values.items():
            found.setdefault(name, []).append(np.mean(of_sample))
        samples.append(rows)
    for name, distance in (("divergence", divergence), ("cosine", cosine)):
        pairs = product(samples[0].values(), samples[1].values())
        found[f"{name}_between"] = [distance(p, q) for (a, p), (b, q) in pairs if a == b]
    figures = statistics.figures()
    assert figures.keys() == found.keys()
    for name, values in found.items():
        assert figures[name] == pytest.approx(np.mean(values), rel=1e-7, abs=1e-9), name
    assert float(statistics.entropies.sum()) == 2 * len(samples[0])
    assert draw_statistics(statistics)


def test_shares_of_regions() -> None:
    """Each key counts once: own, else same class, else another class, else the rest."""
    block = make_block(dims=3)
    x = torch.randn(6, 2, 1, 6).double()  # of 4 frames and 18 columns of pixels
    regions = [
        Region(label="a", boxes=np.array([[0, 1.0, 1.0, 4.0, 4.0], [7, 0, 0, 1, 1]])),
        Region(label="a", boxes=np.array([[1, 4.0, 1.0, 8.0, 4.0]])),
        Region(label="b", boxes=np.array([[2, 7.0, 1.0, 11.0, 4.0]])),
        Region(label="c", boxes=np.empty((0, 5))),
    ]
    statistics = AttentionStatistics()
    statistics.add([seen_by(block, x)], regions)
    weights, *_ = explicit_map(block, x)
    by_hand = [  # queries, and for each of three windows in two time steps its index in SHARES
        ("a", [0, 1], [0, 1, 3, 3, 2, 3]),
        ("a", [1, 2], [0, 0, 3, 3, 2, 3]),
        ("b", [8, 9], [2, 2, 3, 3, 0, 3]),
    ]
    expected: dict[str, list[Any]] = {"a": [], "b": []}
    for label, queries, kinds in by_hand:
        own = weights[queries].mean(0)
        shares = [own[np.equal(kinds, k)].sum() for k in range(4)]
        expected[label].append([*shares, *(np.equal(kinds, k).mean() for k in range(4))])
    (row,) = statistics.rows()
    assert row["regions"].keys() == {"a", "b"}  # the empty one has no query
    columns = [*SHARES, *(f"{name}_uniform" for name in SHARES)]
    for label, shares in expected.items():
        found = [row["regions"][label][name] for name in columns]
        assert found == pytest.approx(np.mean(shares, 0))
    every = [*expected["a"], *expected["b"]]
    assert [row[name] for name in columns] == pytest.approx(np.mean(every, 0))


def test_samples_of_different_sizes_are_not_compared() -> None:
    block, statistics = make_block(), BlockStatistics("b", "embedded_gaussian")
    statistics.add(seen_by(block, torch.randn(6, 4, 7).double()))
    statistics.add(seen_by(block, torch.randn(6, 7, 4).double()))
    assert "divergence_between" not in statistics.figures()
    statistics.add(seen_by(block, torch.randn(6, 4, 7).double()))
    assert statistics.figures()["divergence_between"] > 0
    for height in range(5, 25):
        statistics.add(seen_by(block, torch.randn(6, height, 4).double()))
    assert len(statistics._last) <= 8  # memory does not grow with the samples


def test_detections_are_regions_by_mask_or_box() -> None:
    found = Instances(
        (6, 8),
        pred_boxes=Boxes(torch.tensor([[1.0, 1, 5, 4], [2, 2, 3, 3]])),
        pred_classes=torch.tensor([1, 7]),
        pred_masks=torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0)) > 0.5,
    )
    found.pred_masks[1] = False  # as if cut off: its box stands for it
    seen = ImageAttention(
        image=np.zeros((6, 8, 3), np.uint8), instances=found, class_names=["x", "y"], blocks=[]
    )
    first, second = detected_regions(seen)
    assert (first.label, second.label) == ("y", "class 7")
    covered = np.zeros((6, 8), int)
    for _, x0, y0, x1, y1 in first.boxes.astype(int):
        covered[y0:y1, x0:x1] += 1
    assert (covered == found.pred_masks[0].numpy()).all()
    assert second.boxes.tolist() == [[0, 2, 2, 3, 3]]


def test_given_regions() -> None:
    (region,) = given_regions([{"label": "a", "boxes": [[1, 2, 3, 4]]}])
    assert region.boxes.tolist() == [[0, 1, 2, 3, 4]]
    for wrong in ([{"boxes": []}], [{"label": "a", "boxes": [[1, 2, 3]]}], [3]):
        with pytest.raises(UserError, match="boxes"):
            given_regions(wrong)


def test_signal_regions_cover_drawn_objects() -> None:
    """Boxes of the signals cover drawn objects, only in the frames that show them."""
    index = clips.class_groups()["relation"][0]
    first, second = clips.signal_regions(Path(f"val/{index + 1:06d}.mp4"))
    assert first["label"] == second["label"] == clips.CLASSES[index].name
    frames = clips.make_scene("val", index)[1].frames().astype(int)
    seen = []
    for signal in (first, second):
        numbers = {box[0] for box in signal["boxes"]}
        assert len(numbers) == 7
        seen.append(numbers)
        absent = frames[0 if 0 not in numbers else -1]
        for number, *box in signal["boxes"]:
            x0, y0, x1, y1 = (max(0, round(v)) for v in box)
            assert np.abs(frames[number] - absent)[y0:y1, x0:x1].max() > 20
    assert not seen[0] & seen[1]
    assert clips.signal_regions(Path("val/000001.mp4")) == []


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = make_block().float()

    def forward(self, samples: list[dict[str, torch.Tensor]]) -> None:
        assert not self.training
        for sample in samples:
            self.block(sample["x"])


def test_evaluate_attention_matches_block_statistics() -> None:
    torch.manual_seed(2)
    net = Net().train()
    samples = [torch.randn(2, 6, 4, 7), torch.randn(1, 6, 4, 7), torch.randn(0, 6, 4, 7)]
    logged = evaluate_attention(net, ({"x": x} for x in samples))
    assert net.training
    assert not net.block._forward_pre_hooks
    statistics = BlockStatistics("b", "embedded_gaussian")
    for x in torch.cat(samples):
        statistics.add(seen_by(net.block, x))
    figures = statistics.figures()
    assert logged == {
        "nonlocal/block/entropy": pytest.approx(figures["entropy"]),
        "nonlocal/block/query_dependence": pytest.approx(figures["divergence"]),
    }
    assert evaluate_attention(net, [{"x": samples[2]}]) == {}


@pytest.mark.parametrize("count", [0, 2])
def test_evaluation_measures_first_attention_samples(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    samples = [{"x": torch.randn(1, 6, 4, 7)} for _ in range(3)]
    trainer = Trainer.__new__(Trainer)
    monkeypatch.setattr(trainer, "test", lambda cfg, model: {"bbox": {"AP": 1.0}})
    monkeypatch.setattr(trainer, "build_test_loader", lambda cfg, name: [samples[:1], samples[1:]])
    trainer.iter, trainer.max_iter = 0, 9
    trainer.cfg = get_cfg()
    add_nonlocal_config(trainer.cfg)
    trainer.cfg.TEST.ATTENTION_SAMPLES = count
    trainer.cfg.DATASETS.TEST = ("a",)
    trainer._trainer = Namespace(model=Net())
    results = trainer._evaluate()
    assert results == {"bbox": {"AP": 1.0}, **evaluate_attention(trainer.model, samples[:count])}
    assert len(results) == (3 if count else 1)
