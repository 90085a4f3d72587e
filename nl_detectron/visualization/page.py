"""One self-contained HTML page to browse attention: no network, no libraries."""

import base64
import html
import io
import json
import math
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from ..analysis.attention import Attention, ImageAttention
from .drawing import explain, format_weight, heat_map, palette, scale_end, zoomed

LONGEST_SIDE = 1280  # of an image inside the page
HEAT_SIDE = 160  # of a heat map inside the page; the browser smooths it
LEGEND_STEPS = 16


class Page:
    """Collects images; `html` is the page. Only what the page shows is kept of each.

    Args:
        title: heading of the page.
        subtitle: a line below it, such as config and weights.
        arrows: to how many of the strongest positions above an even share, at most.
    """

    def __init__(self, *, title: str, subtitle: str = "", arrows: int = 8) -> None:
        self.title = title
        self.subtitle = subtitle
        self.arrows = arrows
        self._images: list[dict[str, Any]] = []

    def add(self, name: str, seen: ImageAttention, *, detections: np.ndarray) -> None:
        """Add an image under `name`; `detections` is the image of `draw_instances`."""
        height, width = seen.image.shape[:2]
        self._images.append(
            {
                "name": name,
                "width": width,
                "height": height,
                "original": jpeg(seen.image),
                "detections": jpeg(detections),
                "found": len(seen.instances),
                "views": [self._view(a, width=width, height=height) for a in seen.attentions],
            }
        )

    def html(self) -> str:
        """The whole page."""
        data = {"images": self._images, "legend": legend()}
        return fill_template("page.html", title=self.title, subtitle=self.subtitle, data=data)

    def _view(self, attention: Attention, *, width: int, height: int) -> dict[str, Any]:
        x0, y0, x1, y1 = attention.grid.box
        scale = HEAT_SIDE / max(x1 - x0, y1 - y0)
        size = [max(1, math.ceil(side * scale)) for side in (y1 - y0, x1 - x0)]
        return {
            "block": attention.block,
            "label": attention.query.label,
            "query": _rounded(attention.query.x, attention.query.y),
            "box": _rounded(x0, y0, x1, y1),
            "zoom": _rounded(*zoomed(attention, width, height)),
            "heat": _heat_png(attention, height=size[0], width=size[1]),
            "arrows": [
                [
                    *_rounded(x, y),
                    round(weight / attention.peak, 3),
                    format_weight(attention, weight),
                ]
                for _, x, y, weight in attention.strongest(self.arrows)
            ],
            "signed": attention.signed,
            "end": format_weight(attention, scale_end(attention)),
            "note": explain(attention),
        }


def fill_template(name: str, *, title: str, subtitle: str, data: dict[str, Any]) -> str:
    """A page from the template `name` beside this file, which finds `data` in it as JSON."""
    folder = files(__package__)
    text = folder.joinpath(name).read_text(encoding="utf-8")
    for mark, value in (
        ("__STYLE__", folder.joinpath("page.css").read_text(encoding="utf-8")),
        ("__TITLE__", html.escape(title)),
        ("__SUBTITLE__", html.escape(subtitle)),
        # Inside a script element only "</" could end it.
        ("__DATA__", json.dumps(data).replace("</", "<\\/")),
    ):
        text = text.replace(mark, value)
    return text


def legend() -> dict[str, str]:
    """The colour bar of each kind of weights, as CSS stops."""
    return {"share": _gradient(palette(signed=False)), "signed": _gradient(palette(signed=True))}


def _rounded(*values: float) -> list[float]:
    return [round(value, 2) for value in values]


def _gradient(colours: np.ndarray) -> str:
    """CSS stops of a palette, as it looks over a dark image."""
    chosen = colours[np.linspace(0, 255, LEGEND_STEPS).round().astype(int)]
    return ", ".join(
        "rgba({:.0f}, {:.0f}, {:.0f}, {:.2f})".format(*(255 * c[:3]), c[3]) for c in chosen
    )


def _heat_png(attention: Attention, *, height: int, width: int) -> str:
    image = Image.fromarray(heat_map(attention, height=height, width=width)).convert("L")
    colours = np.round(255 * palette(signed=attention.signed)).astype(np.uint8)
    image.putpalette(colours[:, :3].tobytes())
    with io.BytesIO() as buffer:
        image.save(buffer, "PNG", transparency=colours[:, 3].tobytes(), optimize=True)
        return _data_uri("png", buffer.getvalue())


def jpeg(image: np.ndarray) -> str:
    """An image inside the page, made smaller where it is large."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    with io.BytesIO() as buffer:
        thumbnail.save(buffer, "JPEG", quality=88)
        return _data_uri("jpeg", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
