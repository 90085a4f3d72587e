#!/usr/bin/env python
"""Check the words of pages and code: docstrings' first lines, line lengths, words to avoid."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LENGTH = 100  # of a line of prose in Markdown

# A first line is an imperative or a noun phrase: "Return the shape.", "Video metadata."
CLAUSE = re.compile(r"\b(what|where|whether|how)\b|^(Of|What|Where|Whether|How|Whoever)\b")
INSTEAD = {
    r"data sets?": "dataset",
    r"set-ups?": "setup",
    r"per cent": "%",
    r"at hand": "available",
    r"anew": "again",
    r"beside": "next to",
    r"one's own": "your own, custom",
    r"whoever": "users who",
    r"go(es|ing)? on (with|where|at|from|as)": "continue",
    r"(leave|leaves|leaving|left) out": "skip",
    r"seams?": "boundary",
    r"\w*colour\w*": "color",
    r"centre\w*": "center",
    r"grey": "gray",
    r"(normal|initial)is\w*": "normalize, initialize",
    r"classifiers? of (clips|videos)": "video classifier",
}
WORDS = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)
OPENING = re.compile(r"(?:^|[.:] )(Of|What|Whoever) [^.?]*\.(?: |$)")
FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]*`|\]\([^)\n]*\)|https?://\S+")  # code and targets of links


def check_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers and problems of a Markdown page."""
    prose = FENCED.sub(lambda code: "\n" * code[0].count("\n"), text)
    for number, line in enumerate(prose.splitlines(), 1):
        if len(line) > LENGTH and not line.startswith(("|", "#", "![", "<!--")):
            yield number, f"{len(line)} characters, at most {LENGTH}"
    yield from check_text(INLINE.sub("x", prose))


def check_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers and problems of Python code, its docstrings and comments."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if CLAUSE.search(first):
                yield node.body[0].lineno, f"'{first}'"
    yield from check_text(text)


def check_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers and words to avoid."""
    flat = text.replace("\n", " ")  # a phrase may continue on the next line
    for match in (*WORDS.finditer(flat), *OPENING.finditer(flat)):
        yield 1 + text.count("\n", 0, match.start(1)), f"'{match[1]}'"


def main() -> int:
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "*.py"]
    names = subprocess.check_output(list_files, cwd=ROOT, text=True).splitlines()
    found = 0
    for path in (ROOT / name for name in names if name != "tools/check_words.py"):
        check = check_page if path.suffix == ".md" else check_code
        name = path.relative_to(ROOT)
        for number, problem in check(path.read_text(encoding="utf-8")):
            print(f"{name}:{number}: {problem}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
