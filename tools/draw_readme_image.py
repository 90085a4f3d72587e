#!/usr/bin/env python
"""Draw docs/images/attention_video.jpg from the run of `make quickstart-video`."""

import argparse
from pathlib import Path

import nl_detectron  # noqa: F401  (before detectron2: no warnings of its import are shown)

# isort: split
from detectron2.data import DatasetCatalog

from nl_detectron.analysis.attention import compute_clip_attention
from nl_detectron.analysis.clip import read_clip
from nl_detectron.engine.predictor import complete_config, load_model
from nl_detectron.visualization import draw_strip

TARGET = Path(__file__).resolve().parent.parent / "docs/images/attention_video.jpg"
VIDEO = "000238.mp4"  # of nl_clips_val: its fireworks differ in color
POINT = (21, 86.0, 34.5)  # frame, x and y, on the second firework
CLIP = {"frames": 8, "stride": 3, "short_side": 48}  # as the quickstart has them
SHOWN = 62  # rows of the frames; there is only ground below


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "run", nargs="?", default="output/quickstart-video", help="default: %(default)s"
    )
    run = parser.parse_args().run
    cfg = complete_config(f"{run}/config.yaml", opts=["MODEL.WEIGHTS", f"{run}/model_final.pth"])
    files = [video["file_name"] for video in DatasetCatalog.get("nl_clips_val")]
    (file,) = (file for file in files if file.endswith(VIDEO))
    model, _ = load_model(cfg)
    clip = read_clip(file, **CLIP, start=0)
    seen = compute_clip_attention(model, clip, class_names=[""] * 10)
    figure = draw_strip(seen, seen.attend(clip.query(*POINT)), arrows=2)
    figure.suptitle("")
    (axes,) = figure.axes
    axes.set_title("", loc="left")
    axes.set_ylim(SHOWN, 0)
    for text in axes.texts:
        text.set_text(text.get_text().replace(": ", ": attention "))
    figure.set_size_inches(8.3, 1.8)
    figure.savefig(TARGET, dpi=150, bbox_inches="tight", pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
