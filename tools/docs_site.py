"""MkDocs hook: generated pages, and links between them.

README.md is the home page. CONTRIBUTING.md, CHANGELOG.md, the model zoo and the tutorials are pages
too, and the configs are served next to them. Relative links are written as on GitHub, and lead to
the same page or file on the site.
"""

import json
import posixpath
import re
from pathlib import Path

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
IMAGE = "![Output of the cell above](data:image/jpeg;base64,{})"
_LINK = re.compile(r"\[(?P<text>[^][]*)\]\((?P<target>[\w./-]+)(?P<anchor>#[\w.-]+)?\)")


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
            texts = ["".join(o["text"]) for o in cell["outputs"] if o.get("name") == "stdout"]
            images = ["".join(o["data"]["image/jpeg"]) for o in cell["outputs"] if "data" in o]
            parts.append(f"```python\n{source}\n```")
            if texts:
                parts.append(f"```text\n{''.join(texts)}```")
            parts += [IMAGE.format("".join(image.split())) for image in images]
    note = f"This page is the notebook [{file}]({file}). Jupyter runs it with `.venv`'s Python."
    return "\n\n".join([parts[0], note, *parts[1:]])
