"""``nl-detectron``: its subcommands, and packaged configs by name from any folder."""

import sys
from pathlib import Path

import pytest

from nl_detectron.__main__ import main
from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.utils.errors import UserError

I3D = "Kinetics/i3d_R_50_NL5_8x8.yaml"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; return its exit status and its output."""

    def run_line(*line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nl-detectron", *line])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run_line


@pytest.mark.parametrize(
    "command",
    ["train", "demo", "attention", "analyze", "check", "export", "reproduce", "zoo"],
)
def test_each_command_has_a_help_under_its_name(run, command) -> None:
    status, text, _ = run(command, "--help")
    assert status == 0
    assert text.startswith(f"usage: nl-detectron {command} ")
    assert ".py --" not in text
    assert f"nl-detectron {command} " in text.partition("examples:")[2]
    assert f"\n  {command} " in run("--help")[1]


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        (("analyse",), "'analyze'?"),
        (
            ("analyze", "--config-file", "mask_rcnn_R_50_FPN_NL_1x.yaml"),
            "n/mask_rcnn_R_50_FPN_NL_1x.yaml'",
        ),
        (("zoo", "Kinetics/i3d_R_50_NL5_8x9.yaml"), f"'{I3D}'"),
        (("analyze", "--config-file", "Kinetics/i3d_R_50_NL5_8x9.yaml"), f"'{I3D}'"),
    ],
)
def test_wrong_name_suggests_nearest(run, line, nearest) -> None:
    status, _, error = run(*line)
    assert status == 1
    assert len(error.splitlines()) == 1
    assert nearest in error


def test_count_below_one_is_refused(run) -> None:
    status, _, error = run("analyze", "--config-file", "a.yaml", "--input-size", "0", "5")
    assert status == 2
    assert "--input-size" in error.splitlines()[-1]


def test_the_zoo_is_listed_by_name(run) -> None:
    status, text, _ = run("zoo", "kinetics", "I3D_R_50_NL5_8x8")
    assert status == 0
    _, _, row = text.splitlines()
    assert row.startswith(I3D)
    assert "74.7 / 91.6" in row  # of the official code
    assert "not run" in row


def test_a_packaged_config_is_found_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = load_config(I3D)
    (tmp_path / "own.yaml").write_text(f"_BASE_: {I3D}\nSOLVER: {{MAX_ITER: 7}}")
    packaged.SOLVER.MAX_ITER = 7
    assert load_config("own.yaml") == packaged
    lazy = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.py"
    assert load_lazy_config(lazy).train.max_iter == 90000


def test_a_file_comes_before_a_packaged_config(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "quickstart.yaml").write_text("SOLVER: {MAX_ITER: 5}")
    (tmp_path / "own.yaml").write_text("_BASE_: quickstart.yaml")
    assert load_config(tmp_path / "own.yaml").SOLVER.MAX_ITER == 5
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart.yaml").SOLVER.MAX_ITER == 5


def test_unknown_base_suggests_nearest(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("_BASE_: Kinetics/i3d_R_50_NL5_8x9.yaml")
    with pytest.raises(UserError, match=rf"own\.yaml.*'{I3D}'"):
        load_config(tmp_path / "own.yaml")
