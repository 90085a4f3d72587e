"""Fuzz of configs: whatever the values, a config loads or is refused in a line.

``NL_DETECTRON_FUZZ_EXAMPLES=20000 python -m pytest tests/test_properties.py`` looks further.
"""

from collections.abc import Iterator
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


def paths(node: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from paths(value, (*prefix, key))
        else:
            yield (*prefix, key)


CFG = get_cfg()
nl_detectron.add_nonlocal_config(CFG)
OUR_PATHS = sorted(set(paths(CFG)) - set(paths(get_cfg())))
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


@fuzz
@given(path=st.sampled_from(OUR_PATHS) | st.sampled_from(list(paths(CFG))), value=VALUES)
def test_fuzz_values_in_a_config_file(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    for key in reversed(path):
        value = {key: value}
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(value), encoding="utf-8", errors="replace")
    try:
        load_config(file)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017  (most values are valid)
