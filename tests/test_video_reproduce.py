"""The paper's video tables: their rows and starts; the released weights."""

import sys
from pathlib import Path

import pytest
import reproduce
import tiny_run

from nl_detectron.errors import UserError
from nl_detectron.model_zoo import Entry
from nl_detectron.reproduction import Machines, Row, plan, run_all, select, with_starts

SCRIPT = tiny_run.ROOT / "train_net.py"


def row_of(entry: Entry, output: Path, *opts: str) -> Row:
    return plan(entry, train_script=SCRIPT, output=output, machines=Machines(), opts=opts)


def test_table_2_has_each_network_of_its_parts_once() -> None:
    whole = [entry.config for entry in select("2")]
    parts = {entry.config for part in "abcdefg" for entry in select(f"2{part}")}
    assert len(whole) == len(set(whole)) == 29
    assert set(whole) == parts


def test_short_clips_come_first_and_charades_after_kinetics(tmp_path: Path) -> None:
    names = [entry.row_name for entry in with_starts(select("4"))]
    assert names == [
        "I3D-R101",
        "I3D-R101-128x1",
        "Charades-I3D-R101-128x1",
        "I3D-R101-NL5-128x1",
        "Charades-I3D-R101-NL5-128x1",
    ]
    rows = [row_of(e, tmp_path, "MODEL.WEIGHTS", "other.pth") for e in with_starts(select("4"))]
    weights = [row.command[-1] for row in rows]
    final = [str(row.folder / "model_final.pth") for row in rows]
    assert weights == ["other.pth", final[0], final[1], final[0], final[3]]


def test_a_row_whose_start_is_missing_is_not_started(tmp_path: Path) -> None:
    (entry,) = select("2g", ["I3D-R50-NL5-128x1"])
    row = row_of(entry, tmp_path)
    start = tmp_path / "Kinetics/i3d_R_50_32x2/model_final.pth"
    error = run_all([row], Machines())[entry.config]
    assert error == f"not started: there is no {start}, which it starts from"
    assert not row.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--released", "none"], "--released none: there is no such folder"),
        (["--released", "."], "has no c2d_baseline_32x2_IN_pretrain_400k.pkl, the weights of"),
        (["--released", "--rows", "R50"], "the official README has no row 'R50'"),
        (["--released", "--accumulate"], "--accumulate is for trainings: it needs --table"),
    ],
)
def test_bad_flags_of_released_weights(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    with pytest.raises(UserError, match=message):
        reproduce.main()
    assert not list(tmp_path.iterdir())
