#!/usr/bin/env python
"""Check the words of pages and code: docstrings' first lines, line length, banned words."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("nl_detectron", "tools", "demo", "experiments", "tests", "docs", "model_zoo")
LENGTH = 100
# A first line is a sentence with a verb, or a noun: "Return the shape.", "Video metadata."
CLAUSE = re.compile(r"\b(what|where|whether|how)\b|^(Of|What|Where|Whether|How|Whoever)\b")
BANNED = {
    r"data sets?": "dataset",
    r"set-ups?": "setup",
    r"per cent": "%",
    r"at hand": "available",
    r"anew": "again",
    r"beside": "next to",
    r"one's own": "your own, custom",
    r"whoever": "users who",
    r"(go|goes|went|going) on (with|where|at|from|as)": "continue",
    r"(leave|leaves|leaving|left) out": "skip",
    r"seams?": "boundary",
    r"classifiers? of (clips|videos)": "video classifier",
}
WORDS = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)
OPENING = re.compile(r"(?:^|[.:] )(Of|What|Whoever) [^.?]*\.(?: |$)")
# Not prose: fenced code, code between the lines, tables, headings, images, targets of links.
CODE = re.compile(r"^ *(```|~~~).*?^ *\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"\]\([^)\n]*\)|https?://\S+")


def check_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers and problems of a Markdown page."""
    blank = CODE.sub(lambda code: re.sub(r"[^\n]", "x", code[0]), text)
    for number, line in enumerate(blank.splitlines(), 1):
        prose = not line.startswith(("|", "#", "![", "[!", "<!--", "    "))
        if prose and len(line) > LENGTH:
            yield number, f"{len(line)} characters, at most {LENGTH}"
    yield from check_text(TARGET.sub("](x)", blank))


def check_text(text: str, first: int = 1) -> Iterator[tuple[int, str]]:
    """Yield line numbers and banned words of a text that begins in line `first`."""
    flat = text.replace("\n", " ")  # a phrase may continue on the next line
    for match in (*WORDS.finditer(flat), *OPENING.finditer(flat)):
        yield first + text.count("\n", 0, match.start(1)), f"'{match[1]}'"


def check_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers and problems of Python docstrings, strings and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            doc = ast.get_docstring(node)
            if doc and CLAUSE.search(doc.partition("\n")[0]):
                yield node.body[0].lineno, f'first line: "{doc.partition(chr(10))[0]}"'
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from check_text(node.value, node.lineno)
    for number, line in enumerate(text.splitlines(), 1):
        yield from check_text(line.rpartition("# ")[2] if "# " in line else "", number)


def main() -> int:
    pages = [*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))]
    scripts = [*ROOT.glob("*.py"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.py"))]
    found: Counter[str] = Counter()
    for path in sorted({*pages, *scripts}):
        check = check_page if path.suffix == ".md" else check_code
        name = path.relative_to(ROOT)
        for number, problem in check(path.read_text(encoding="utf-8")):
            print(f"{name}:{number}: {problem}")
            found[name.parts[0]] += 1
    for folder, count in found.items():
        print(f"{folder}: {count} problems", file=sys.stderr)
    return min(sum(found.values()), 1)


if __name__ == "__main__":
    sys.exit(main())
