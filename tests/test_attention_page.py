"""The attention page: its file, and clicks in a browser compared with the model."""

import json
import re
import shutil
import subprocess
import threading
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from test_video_attention import START, STRIDE, clip_with_dot, network, see_brightness
from test_visualization import detect, image_with_dot, make_predictor

from nl_detectron.analysis.attention import (
    BlockInput,
    compute_attention,
    compute_clip_attention,
)
from nl_detectron.analysis.clip import Query
from nl_detectron.modeling.attention_rows import AttentionRows, distances, shares
from nl_detectron.visualization import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium, which Debian's package has")
# Uses the page's own functions and state; its `at` returns the element of an id.
DRIVE = """
<script>
ready.then(async () => {
  const report = [];
  const note = (more = {}) => report.push({ ...more, queries: [...state.queries],
    scroll: [scrollX, scrollY], wide: document.documentElement.scrollWidth - innerWidth,
    shown: at("shown").textContent,
    blocks: [...at("blocks").children].map((part, index) => {
      const block = sample().blocks[index], input = inputAt(block, state.queries[0]);
      return { name: block.name, region: input?.region,
        text: part.querySelector(".note").textContent, difference: part.difference,
        top: [...part.querySelectorAll("li")].map((item) => Number(item.dataset.weight)),
        weights: input && [...rowOf(block, input, state.queries[0]).weights] };
    }) });
  const point = (kind, canvas, x, y, more = {}) => {
    const box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new MouseEvent(kind,
      { clientX: box.left + x, clientY: box.top + y, bubbles: true, ...more }));
  };
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown",
    { key, bubbles: true }));
  const stage = at("stage"), { width, height } = sample();
  const scale = stage.clientWidth / width;
  note();
  if (sample().frames.length > 1) {
    at("time").value = 6;
    at("time").dispatchEvent(new Event("input", { bubbles: true }));
  }
  point("click", stage, 0.8 * width * scale, 0.4 * height * scale);
  note();
  press("ArrowLeft");
  note();
  // In the middle of the last frame of the first block.
  const part = document.querySelector(".block"), { tile } = part.tiles.at(-1);
  const [x0, y0, x1, y1] = tile.view;
  point("click", part.querySelector(".strips"), tile.left + (x1 - x0) / 2 * tile.scale,
    tile.top + (y1 - y0) / 2 * tile.scale);
  note({ frame: tile.frame });
  point("click", stage, 0.45 * width * scale, 0.7 * height * scale, { shiftKey: true });
  note();
  press("Escape");
  if (PLANTED) moveFrame(3 - state.frame);
  press("a");  // hides the arrows
  // Where the stage is reddest.
  const pixels = stage.getContext("2d").getImageData(0, 0, stage.width, stage.height).data;
  let [best, reddest] = [-1, []];
  for (let k = 0; k < stage.width * stage.height; k++) {
    const red = pixels[4 * k] - pixels[4 * k + 2];
    if (red > best) [best, reddest] = [red, []];
    if (red === best) reddest.push([k % stage.width, Math.floor(k / stage.width)]);
  }
  const mean = (i) => reddest.reduce((sum, p) => sum + p[i], 0) / reddest.length + 0.5;
  note({ red: [mean(0) / stage.width * width, mean(1) / stage.height * height] });
  return report;
}).catch((error) => `${error} ${error.stack}`).then((report) =>
  console.log(`report ${btoa(encodeURIComponent(JSON.stringify(report)))} end`));
</script>
"""


def browse(page: Page, folder: Path, *, width: int = 1400, planted: bool = False) -> list[Any]:
    """Return the values that the script reads in a real browser."""
    file = folder / "page.html"
    script = DRIVE.replace("PLANTED", str(planted).lower())
    file.write_text(page.html().replace("</body>", f"{script}</body>"), encoding="utf-8")
    browser = subprocess.Popen(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}", file.as_uri(),
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    timer = threading.Timer(120, browser.kill)
    timer.start()
    with browser:
        assert browser.stderr
        found = next(filter(None, (re.search("report (.*) end", s) for s in browser.stderr)), None)
        browser.kill()
    timer.cancel()
    assert found, "the page reported nothing in two minutes"
    report = json.loads(unquote(b64decode(found[1]).decode()))
    assert isinstance(report, list), report
    return report


def input_at(blocks: Sequence[BlockInput], name: str, query: Sequence[float]) -> BlockInput | None:
    """The input of a block at a query: that of the smallest region there."""
    inside = [b for b in blocks if b.name == name and b.grid.contains(*query[1:])]
    areas = [(b.grid.x.end - b.grid.x.start) * (b.grid.y.end - b.grid.y.start) for b in inside]
    return inside[int(np.argmin(areas))] if inside else None


def check(report: list[Any], blocks: Sequence[BlockInput], size: tuple[int, int]) -> None:
    """Compare weights, queries and layout of each state of the page with the model."""
    height, width = size
    for state in report:
        assert state["scroll"] == [0, 0]
        assert state["wide"] <= 0
        for shown in state["blocks"]:
            frame, x, y = state["queries"][0]
            seen = input_at(blocks, shown["name"], state["queries"][0])
            if seen is None:
                assert "region" in shown["text"]
                continue
            (attention,) = seen.attend([Query(frame=frame, x=x, y=y, label="")])
            scale = np.abs(attention.weights).max()
            np.testing.assert_allclose(
                np.array(shown["weights"]) / scale, attention.weights.ravel() / scale, atol=0.02
            )
            weights = [weight for *_, weight in attention.strongest(3)]
            assert shown["top"] == pytest.approx(weights, rel=0.02)
    _, clicked, moved, in_block, compared, escaped = report
    assert clicked["queries"][0][1:] == pytest.approx([0.8 * width, 0.4 * height], abs=1.5)
    first = input_at(blocks, blocks[0].name, clicked["queries"][0])
    assert first
    step = clicked["queries"][0][1] - moved["queries"][0][1]
    assert step == pytest.approx(first.grid.x.step)
    assert in_block["queries"][0][0] == in_block["frame"]
    assert in_block["queries"][0][1:] == pytest.approx([width / 2, height / 2], abs=1.5)
    assert compared["queries"][1][1:] == pytest.approx([0.45 * width, 0.7 * height], abs=1.5)
    assert escaped["queries"][1] is None
    # How much two places differ, if they see the same keys.
    rows = AttentionRows(first.block, first.features)
    weights, keys = rows.at([first.grid.position(int(f), x, y) for f, x, y in compared["queries"]])
    if torch.equal(keys[0], keys[1]):
        expected = [float(v) for v in distances(*shares(weights).unsqueeze(1))]
        assert compared["blocks"][0]["difference"] == pytest.approx(expected, abs=0.01)
    else:
        assert compared["blocks"][0]["difference"] is None


@needs_chromium
@pytest.mark.parametrize(
    ("pairwise", "keys", "width"),
    [
        ("embedded_gaussian", {}, 1400),
        ("concatenation", {"AFTER_BLOCKS": [[0], [0], [], []], "GROUP_FRAMES": [0, 2, 0, 0]}, 500),
        ("dot_product", {"AXES": "time"}, 1400),
    ],
)
def test_clips_in_a_browser(
    tmp_path: Path, pairwise: str, keys: dict[str, Any], width: int
) -> None:
    _, model = network(pairwise, **keys)
    is_planted = pairwise == "embedded_gaussian"
    if is_planted:
        see_brightness(model)
    clip = clip_with_dot(3, 75, 45)
    seen = compute_clip_attention(model, clip)
    page = Page(title="a < b", arrows=3)
    page.add_clip(seen, queries=[clip.query(START + STRIDE, 10.5, 20.5)])
    report = browse(page, tmp_path, width=width, planted=is_planted)
    check(report, seen.blocks, clip.size)
    assert report[0]["queries"] == [[1, 10.5, 20.5], None]
    assert "frame 20 (7 of 8" in report[1]["shown"]
    if is_planted:
        assert report[-1]["red"] == pytest.approx((75, 45), abs=8)  # the middle of a window


@needs_chromium
@pytest.mark.parametrize(
    ("pairwise", "boxes", "width"),
    [
        ("embedded_gaussian", [[40, 30, 320, 240], [200, 60, 320, 190]], 1400),
        ("dot_product", [], 500),
    ],
)
def test_images_in_a_browser(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairwise: str,
    boxes: list[list[float]],
    width: int,
) -> None:
    predictor = make_predictor(tmp_path, PAIRWISE=pairwise, SUBSAMPLE=3, INIT_STD=0.5)
    detect(predictor, monkeypatch, boxes)
    image = image_with_dot(100, 100, 20)
    seen = compute_attention(predictor, image)
    page = Page(title="a", arrows=3)
    page.add_image("dot.png", seen, detections=seen.image)
    report = browse(page, tmp_path, width=width)
    check(report, seen.blocks, image.shape[:2])
    if boxes:
        # At the place that was clicked two people overlap: the smaller one counts.
        assert report[1]["blocks"][1]["region"] == "2 0"
    else:
        assert report[0]["queries"][0] == [0, image.shape[1] / 2, image.shape[0] / 2]


def test_the_page_needs_no_network() -> None:
    _, model = network()
    clip = clip_with_dot(3, 60, 45)
    page = Page(title="a < b", subtitle="</script>")
    seen = compute_clip_attention(model, clip)
    page.add_clip(replace(seen, clip=replace(clip, file=Path("</script>.mp4"))))
    text = page.html()
    assert "a &lt; b" in text
    assert text.count("</script>") == 2  # of the data and of the code: names are escaped
    assert "__" not in re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(?!data:|\$)(\w+:|//)", text)
    assert "url(" not in text
    assert "@import" not in text


def test_page_stores_no_redundant_channels() -> None:
    _, model = network()
    clip = clip_with_dot(3, 60, 45)
    seen = compute_clip_attention(model, clip)
    (block,) = seen.blocks
    with torch.no_grad():  # theta gets rank 2
        block.block.theta.weight[2:] = block.block.theta.weight[:1]
        block.block.theta.bias.zero_()
    page = Page(title="a")
    page.add_clip(seen)
    (data,) = re.findall(r'id="data">(.*?)</script>', page.html(), re.S)
    assert json.loads(data)["samples"][0]["inputs"][0]["width"] <= 2
