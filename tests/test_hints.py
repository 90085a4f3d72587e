"""Hints for newcomers' mistakes; the one for an unknown dataset is in test_register."""

import logging
import shlex

import pytest
from torch import nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.config import check_clips, is_video, load_config
from nl_detectron.engine.defaults import advise_a_trial
from nl_detectron.utils.errors import UserError


def test_weights_that_cannot_be_downloaded_are_told_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"127.0.0.1:9/none\.pth") as error:
        Checkpointer(nn.Linear(1, 1)).load("http://127.0.0.1:9/none.pth")
    assert "MODEL.WEIGHTS" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config", ["COCO-Detection/faster_rcnn_R_50_FPN_NL_1x.yaml", "Kinetics/c2d_R_50_NL5_32x2.yaml"]
)
def test_a_long_training_on_a_cpu_is_given_options_that_it_takes(
    config: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nl_detectron"):
        for small in ("quickstart.yaml", "quickstart_video.yaml"):
            advise_a_trial(load_config(small))
        assert not caplog.text
        advise_a_trial(load_config(config))
    options = shlex.split(caplog.text.split(" add ")[1].split(", or ")[0])
    cfg = load_config(config, options)
    if is_video(cfg):
        check_clips(cfg)
    advise_a_trial(cfg)
    assert len(caplog.records) == 1
