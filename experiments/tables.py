"""Rows of dataclasses in CSV files, and tables of pages."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from tabulate import tabulate


def parse(kind: type, row: Mapping[str, str], **given: Any) -> Any:
    """Return a `kind` with its fields from `row`, all but those `given`."""
    types = get_type_hints(kind)
    read = {f.name: types[f.name](row[f.name]) for f in fields(kind) if f.name not in given}
    return kind(**read, **given)


def names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, header: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file; it is there whole or as it was."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    os.replace(beside, path)


def markdown(rows: list[list], headers: list[str], *, right: Sequence[int] = ()) -> str:
    """Return a table of a page; the columns numbered in `right` are aligned there."""
    sides = ["right" if column in right else "left" for column in range(len(headers))]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=sides)
