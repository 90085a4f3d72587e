"""The video classifier: losses, views and larger frames."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from video_networks import build, clip, randomize, video_cfg

from nl_detectron.modeling import VideoClassifier
from nl_detectron.utils.errors import ConfigError, UserError

HEAD = "MODEL.VIDEO_CLASSIFIER"
SMALL = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.OUT_FEATURES", ["res3"])
SMALL += ("INPUT.CROP.SIZE", [32, 32], f"{HEAD}.DROPOUT", 0.0)


def classifier(*opts: Any) -> VideoClassifier:
    """A small one; a crop of 32 pixels is 4x4 in its features."""
    model = build(video_cfg(*SMALL, *opts))
    return randomize(model)


def small_clip(**kwargs: Any) -> Tensor:
    return clip(**{"size": (32, 32), **kwargs})


def video(clips: Tensor, *labels: int) -> dict[str, Any]:
    return {"clips": clips, "labels": list(labels), "video_id": 1, "file_name": "v.mp4"}


def features(model: VideoClassifier, clips: Tensor) -> Tensor:
    """By the backbone in float64, for clips normalized here."""
    exact = copy.deepcopy(model.backbone).double()
    return exact((clips.double() - 114.75) / 57.375)["res3"]


def linear(model: VideoClassifier, pooled: Tensor) -> Tensor:
    return pooled @ model.classifier.weight.double().T + model.classifier.bias.double()


@pytest.mark.parametrize("multi_label", [False, True])
def test_loss_matches_formula(multi_label) -> None:
    """Inputs of two videos, one of them with two clips."""
    model = classifier(f"{HEAD}.MULTI_LABEL", multi_label).train()
    clips = small_clip(views=3)
    labels = [[1, 4], []] if multi_label else [[3], [0]]
    logits = linear(model, features(model, clips).mean((2, 3, 4)))
    if multi_label:
        targets = torch.zeros(3, 5, dtype=torch.float64)
        targets[:2, 1] = targets[:2, 4] = 1
        p = logits.sigmoid()
        expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    else:
        expected = -logits.log_softmax(1)[range(3), [3, 3, 0]].mean()
    losses = model([video(clips[:2], *labels[0]), video(clips[2:], *labels[1])])
    assert list(losses) == ["loss_cls"]
    torch.testing.assert_close(losses["loss_cls"].double(), expected, rtol=1e-4, atol=1e-5)
    losses["loss_cls"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    ("size", "crop"), [((32, 32), True), ((40, 56), True), ((24, 48), True), ((40, 56), False)]
)
def test_scores_average_windows_and_pool_views(size, crop, multi_label, pooling) -> None:
    """Without a crop, the whole map is one window."""
    opts = f"{HEAD}.MULTI_LABEL", multi_label, "TEST.VIEW_POOLING", pooling
    model = classifier(*opts, "INPUT.CROP.ENABLED", crop).eval()
    clips = small_clip(views=3, frames=16, size=size)
    with torch.no_grad():
        (result,) = model([video(clips)])
        map_ = features(model, clips).mean(2)
        height, width = map_.shape[2:]
        assert (height, width) == (size[0] // 8, size[1] // 8)
        rows, columns = (min(height, 4), min(width, 4)) if crop else (height, width)
        windows = [
            linear(model, map_[:, :, top : top + rows, left : left + columns].mean((2, 3)))
            for top in range(height - rows + 1)
            for left in range(width - columns + 1)
        ]
    probabilities = [w.sigmoid() if multi_label else w.softmax(1) for w in windows]
    expected = torch.stack(probabilities).mean(0)
    torch.testing.assert_close(result["view_scores"].double(), expected, rtol=1e-4, atol=1e-5)
    pooled = expected.mean(0) if pooling == "mean" else expected.max(0).values
    torch.testing.assert_close(result["scores"].double(), pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("views_at_once", [1, 4, 30])
def test_views_are_processed_in_chunks(monkeypatch, views_at_once) -> None:
    model = classifier().eval()
    model.views_at_once = views_at_once
    clips = small_clip(views=9)
    with torch.no_grad():
        expected = model.probabilities(clips)
        backbone = mock.Mock(wraps=model.backbone.forward)
        monkeypatch.setattr(model.backbone, "forward", backbone)
        results = model([video(clips), video(clips[:1])])
    seen = [len(call.args[0]) for call in backbone.mock_calls]
    assert (max(seen), sum(seen)) == (min(views_at_once, 9), 10)
    torch.testing.assert_close(results[0]["view_scores"], expected)
    torch.testing.assert_close(results[1]["scores"], expected[0])
    assert model([]) == []


def test_classifier_initialization() -> None:
    model = build(video_cfg(*SMALL, f"{HEAD}.NUM_CLASSES", 3000))
    assert (model.classifier.bias == 0).all()
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not any("pixel" in name for name in model.state_dict())


def test_dropout_acts_in_training_alone() -> None:
    model = classifier(f"{HEAD}.DROPOUT", 0.5)
    x = torch.ones(1, model.classifier.in_features)
    assert torch.equal(model.eval()._linear(x), model._linear(x))
    assert not torch.equal(model.train()._linear(x), model._linear(x))


@pytest.mark.parametrize(
    ("named", "training", "videos"),
    [
        (r"v\.mp4", True, [video(small_clip(frames=3), 1)]),
        (r"v\.mp4", False, [video(small_clip(frames=3), 1)]),
        (r"v\.mp4", True, [video(small_clip(size=(4, 32)), 1)]),
        (r"v\.mp4", True, [video(small_clip(), 1, 2)]),
        (r"v\.mp4", True, [video(small_clip())]),
        (
            r"8, 32, 32.*12, 32, 32",
            True,
            [video(small_clip(), 1), video(small_clip(frames=12), 1)],
        ),
    ],
    ids=["few frames", "few frames in a test", "few rows", "two labels", "no label", "two sizes"],
)
def test_invalid_video_is_named(named, training, videos) -> None:
    with pytest.raises(UserError, match=named):
        classifier().train(training)(videos)


def test_an_image_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.BACKBONE\.NAME"):
        build(video_cfg("MODEL.BACKBONE.NAME", "build_resnet_backbone"))
