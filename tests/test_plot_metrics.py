"""Curves drawn from metrics.json: the right values, also of runs that were killed or resumed."""

import json
import sys

import cv2
import plot_metrics
import pytest

from nl_detectron.utils.errors import UserError
from nl_detectron.visualization.curves import plot_runs, read_runs


def write_run(folder, records, tail=""):
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.json").write_text("\n".join([*lines, tail]))
    return folder


@pytest.fixture
def runs(tmp_path):
    """A plain run, and one that was resumed at 20 and then killed while it wrote."""
    losses = [{"iteration": i, "total_loss": 9.0 - i / 10} for i in (9, 19, 29)]
    plain = write_run(
        tmp_path / "plain", [*losses, {"iteration": 24, "bbox/AP": 30.0, "lr": float("nan")}]
    )
    resumed = [{"iteration": i, "total_loss": i / 1.0} for i in (10, 20, 30, 20, 25)]
    return [plain, write_run(tmp_path / "resumed", resumed, '{"iteration": 35, "total')]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def curve(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return list(line.get_xdata()), list(line.get_ydata())


def test_each_run_is_a_line_in_the_panel_of_each_quantity(runs):
    figure = plot_runs(read_runs(runs))
    assert list(panels(figure)) == ["total_loss", "bbox/AP"]
    loss = panels(figure)["total_loss"]
    assert curve(loss, "plain") == ([9, 19, 29], [8.1, 7.1, 6.1])
    assert curve(panels(figure)["bbox/AP"], "plain") == ([24], [30.0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "resumed"]
    assert loss.get_ylim()[0] == 0
    assert loss.get_xlim() == (0, 29)


def test_what_a_resumed_run_wrote_again_replaces_what_it_had_written(runs):
    resumed = read_runs(runs)[1]
    assert resumed.curves["total_loss"] == {10: 10.0, 20: 20.0, 25: 25.0}
    assert resumed.damaged_lines == 1


def test_smoothing_is_the_mean_of_the_last_points_but_not_of_evaluations(tmp_path):
    records = [{"iteration": i, "loss_x": float(i), "bbox/AP": float(i)} for i in (0, 1, 2, 9)]
    axes = panels(plot_runs(read_runs([write_run(tmp_path / "run", records)]), smooth=3))
    assert curve(axes["loss_x"], "run")[1] == [0.0, 0.5, 1.0, 4.0]
    assert curve(axes["loss_x"], "_as logged")[1] == [0.0, 1.0, 2.0, 9.0]
    assert curve(axes["bbox/AP"], "run")[1] == [0.0, 1.0, 2.0, 9.0]


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["plot_metrics.py", *map(str, arguments)])
    plot_metrics.main()


def test_the_script_writes_a_image_and_mentions_damage(runs, tmp_path, monkeypatch, capsys):
    image = tmp_path / "curves.png"
    run_script(monkeypatch, *runs, "--output", image, "--smooth", 2)
    assert cv2.imread(str(image)).std() > 5
    assert capsys.readouterr().err.startswith("resumed: 1 ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone", "--output", "x.png"], "gone"),
        (["{run}", "--output", "x.png", "--keys", "total_los"], "total_los"),
        (["{run}", "--output", "gone/x.png"], "--output gone/x.png"),
        (["{run}", "--output", "{run}/x.what"], r"--output .*x\.what"),
        (["{run}", "--output", "x.png", "--smooth", "0"], "--smooth"),
        (["{empty}", "--output", "x.png"], "empty"),
    ],
)
def test_mistakes_are_named(runs, tmp_path, monkeypatch, arguments, message):
    empty = write_run(tmp_path / "empty", [], "{")
    with pytest.raises(UserError, match=message):
        run_script(monkeypatch, *(a.format(run=runs[0], empty=empty) for a in arguments))
