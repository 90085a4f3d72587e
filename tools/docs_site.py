"""MkDocs hook: generated pages, and links between them.

README.md is the home page. CONTRIBUTING.md, CHANGELOG.md, the model zoo and the tutorials are pages
too, and the configs are served next to them. Relative links are written as on GitHub, and lead to
the same page or file on the site. The table of config keys is generated from
`nl_detectron.config.defaults`.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "model_zoo.md": "model_zoo/README.md",
    "tutorial.md": "docs/tutorial.ipynb",
    "tutorial_video.md": "docs/tutorial_video.ipynb",
}
SERVED = (
    *("configs/**/*.*", "model_zoo/*.csv", "nl_detectron/config/defaults.py"),
    *("constraints.txt", "CITATION.cff", "LICENSE"),
)
KEYS_MARK = "<!-- config keys -->"
_LINK = re.compile(r"\[(?P<text>[^][]*)\]\((?P<target>[\w./-]+)(?P<anchor>#[\w.-]+)?\)")
_KEY_LINE = re.compile(
    r"(?P<indent> *)(?P<name>[A-Z][A-Z0-9_]*):(?P<default>[^#]*)(# (?P<text>.*))?"
)
_MORE_TEXT = re.compile(r" *# *(?P<text>.*)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        name = posixpath.basename(source)
        content = notebook_as_markdown(text, name) if name.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=content))
    for pattern in SERVED:
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    if KEYS_MARK in markdown:
        markdown = markdown.replace(KEYS_MARK, config_table())
    source = PAGES.get(uri, f"docs/{uri}")
    return _LINK.sub(lambda link: site_link(link, source, uri), markdown)


def site_link(link: re.Match[str], source: str, page: str) -> str:
    """Return a link of the repository's file `source` as it has to be on the site's `page`.

    A link to a missing file stays, for MkDocs to report. A link to a folder, which the site does
    not have, becomes its text.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
    if not (ROOT / path).exists():
        return link[0]
    if (ROOT / path).is_dir():
        return link["text"]
    to_page = {
        made_from: uri for uri, made_from in PAGES.items() if not made_from.endswith(".ipynb")
    }
    place = to_page.get(path, path.removeprefix("docs/"))
    target = posixpath.relpath(place, posixpath.dirname(page) or ".")
    return f"[{link['text']}]({target}{link['anchor'] or ''})"


def notebook_as_markdown(text: str, file: str) -> str:
    """Return text, code and outputs of the notebook `file`, and a link to it."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts += [f"```python\n{source}\n```", *outputs_as_markdown(cell["outputs"])]
    note = f"This page is the notebook [{file}]({file}). Jupyter runs it with `.venv`'s Python."
    return "\n\n".join([parts[0], note, *parts[1:]])


def outputs_as_markdown(outputs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the printed text of a cell, then its images."""
    if printed := "".join("".join(o["text"]) for o in outputs if o.get("name") == "stdout"):
        yield f"```text\n{printed}```"
    for image in (output["data"]["image/jpeg"] for output in outputs if "data" in output):
        encoded = "".join("".join(image).split())
        yield f"![Output of the cell above](data:image/jpeg;base64,{encoded})"


def config_table() -> str:
    """Return a table for each section of the keys that `add_nonlocal_config` adds.

    Keys and defaults are the config's, meanings those of the comments in the docstring of
    `nl_detectron.config.defaults`. Raises ValueError where the two differ, or a key has no meaning.
    """
    from nl_detectron.config import defaults as keys  # with Detectron2 and torch behind it

    defaults = added_keys(keys.add_nonlocal_config)
    described = described_keys(keys.__doc__ or "")
    if unknown := set(described) - set(defaults):
        raise ValueError(f"the docstring has keys that the config lacks: {sorted(unknown)}")
    sections: dict[str, list[str]] = {}
    for key, default in defaults.items():
        documented, text = described.get(key) or _described_elsewhere(key, described)
        if documented != default:
            raise ValueError(f"{key} is {default!r} by default, in the docstring {documented!r}")
        if not text:
            raise ValueError(f"the docstring does not say what {key} means")
        shown = json.dumps(default) if isinstance(default, str | list) else default
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"| `{name}` | `{shown}` | {text} |")
    head = "| key | default | meaning |\n|---|---|---|\n"
    return "\n\n".join(
        f"## {section}\n\n{head}" + "\n".join(rows) for section, rows in sorted(sections.items())
    )


def added_keys(add: Any) -> dict[str, Any]:
    """Return the keys that `add` adds to Detectron2's, with their values."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    before = dict(_leaves(cfg))
    add(cfg)
    return {key: value for key, value in _leaves(cfg) if key not in before}


def described_keys(docstring: str) -> dict[str, tuple[Any, str]]:
    """Return default and meaning of each key in the YAML blocks of `docstring`."""
    described: dict[str, tuple[Any, str]] = {}
    for block in re.findall(r"```yaml\n(.*?)```", docstring, re.DOTALL):
        parents: list[tuple[int, str]] = []
        latest: list[str] = []
        for line in block.splitlines():
            if match := _KEY_LINE.fullmatch(line):
                indent, default, text = len(match["indent"]), match["default"], match["text"] or ""
                parents = [*(p for p in parents if p[0] < indent), (indent, match["name"])]
                latest = []
                if default.strip():
                    key = ".".join(name for _, name in parents)
                    for leaf, value in _leaves(yaml.safe_load(default), key):
                        described[leaf] = value, text
                        latest.append(leaf)
            elif match := _MORE_TEXT.fullmatch(line):
                for leaf in latest:
                    value, text = described[leaf]
                    described[leaf] = value, f"{text} {match['text']}"
    return described


def _described_elsewhere(key: str, described: dict[str, tuple[Any, str]]) -> tuple[Any, str]:
    """Return the entry of the key with the same name in another section."""
    name = key.rpartition(".")[2]
    for other, entry in described.items():
        if other.endswith(f".NON_LOCAL.{name}") and ".NON_LOCAL." in key:
            return entry
    raise ValueError(f"{key} is not in the docstring of nl_detectron.config.defaults")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, node
