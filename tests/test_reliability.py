"""Rows of docs/reliability.md: our words are compared, the reasons that they quote are not."""

import pytest
from reliability import our_words

READ = "| a file | cannot read the checkpoint 'm.pth': the file is damaged or is not a checkpoint "
YAML = "| tabs | a.yaml: not valid YAML: "
PILLOW = "| demo: text | text.jpg: an image's file cannot be read as an image "


@pytest.mark.parametrize(
    ("row", "new_reason", "new_words"),
    [
        (
            f"{READ}(Ran out of input (3)); copy or download it again; continuing from x |",
            f"{READ}(EOFError); copy or download it again; continuing from x |",
            f"{READ}(EOFError); copy or download it again; starting from x |",
        ),
        (
            f"{YAML}while scanning |",
            f"{YAML}a tab |",
            "| tabs | a.yaml: bad YAML: a tab |",
        ),
        (
            f"{PILLOW}(OSError: x) |",
            f"{PILLOW}(ValueError: y (z)) |",
            f"{PILLOW}(it is a named pipe) |",
        ),
    ],
)
def test_only_our_words_are_compared(row: str, new_reason: str, new_words: str) -> None:
    assert our_words(row) == our_words(new_reason)
    assert our_words(row) != our_words(new_words)
