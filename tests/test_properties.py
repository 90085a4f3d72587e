"""Fuzz of configs: whatever the values, a config loads or is refused by name.

``NL_DETECTRON_FUZZ_EXAMPLES=20000 python -m pytest tests/test_properties.py`` looks further.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import get_cfg
from dirty import fuzz
from hypothesis import given
from hypothesis import strategies as st

import nl_detectron
from nl_detectron.config import load_config
from nl_detectron.utils.errors import UserError

KEYS = get_cfg()
nl_detectron.add_nonlocal_config(KEYS)


def paths(node: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in node.items():
        found += [(*prefix, key)] if not isinstance(value, dict) else []
        found += paths(value, (*prefix, key)) if isinstance(value, dict) else []
    return found


ALL_KEYS = sorted(paths(KEYS))
OUR_KEYS = sorted(set(ALL_KEYS) - set(paths(get_cfg())))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([2**63, -(10**30)])
    | st.floats()
    | st.dates()
    | st.binary(max_size=3)
    | st.sampled_from(["BN", "gaussian", "nan", "(1, 2)", "[[", "{}", "${x}", "\0", "\ud800"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def refusal(file: Path, opts: Sequence[str] = ()) -> str:
    """Return the ConfigError's text, "" if the config loads; any other error is a failure."""
    try:
        load_config(file, opts)
    except UserError as error:
        return str(error)
    return ""


def config_file(folder: Path, path: tuple[str, ...], value: Any) -> Path:
    """Write a config with one key."""
    content = value
    for key in reversed(path):
        content = {key: content}
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8", errors="replace")
    return file


@fuzz
@given(path=st.sampled_from(OUR_KEYS * 9 + ALL_KEYS), value=VALUES)
def test_fuzz_values_in_a_config_file(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    assert "\n" not in refusal(config_file(tmp_path, path, value))


def test_null_is_allowed_or_refused_by_name(tmp_path: Path) -> None:
    for path in ALL_KEYS:
        told = refusal(config_file(tmp_path, path, None))
        assert not told or ".".join(path) in told


@fuzz
@given(
    key=st.sampled_from([".".join(path) for path in OUR_KEYS]) | st.text(max_size=9),
    value=st.text(max_size=12) | VALUES.map(repr),
)
def test_fuzz_overrides(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("VERSION: 2")
    assert "\n" not in refusal(file, [key, value])
