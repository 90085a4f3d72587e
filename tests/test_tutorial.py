"""The tutorial notebooks, run from top to bottom."""

import base64
import io
import json
import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
VIDEO_NOTEBOOK = ROOT / "docs/tutorial_video.ipynb"
CELL_TIMEOUT = 600  # seconds; the longest cell trains for about half a minute on a free core

# Run last, in the notebook's kernel: what its text says must be so.
FACTS = """
import json

print(json.dumps({
    "missing": loaded.missing_keys,
    "unexpected": loaded.unexpected_keys,
    "new": sorted(set(model.state_dict()) - set(checkpoint["model"])),
    "results": results,
    "added": [added_share(model), added_share(trained)],
}))
"""

VIDEO_FACTS = """
import json

print(json.dumps({
    "missing": loaded.missing_keys,
    "new": sorted(set(model.state_dict()) - set(checkpoint)),
    "results": results,
    "trained": [v["file_name"] for v in train_videos],
    "evaluated": [v["file_name"] for v in val_videos],
}))
"""
# A few iterations, by cell: what is learned is not tested, how each step is done is.
SHORTER = {
    "baseline-config": ("MAX_ITER = 150", "MAX_ITER = 3"),
    "fine-tune": ("MAX_ITER = 60", "MAX_ITER = 3"),
}


def execute(notebook: nbformat.NotebookNode, cwd: Path, facts: str) -> tuple[dict, dict]:
    """Run all cells, then `facts`, in a kernel of the interpreter that runs the tests.

    Return what `facts` prints, and the cells by their names.
    """
    notebook.cells.append(nbformat.v4.new_code_cell(facts, id="facts"))
    # Without folders to search, the kernel is ipykernel's own, not one installed for a user.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    NotebookClient(notebook, km=manager, timeout=CELL_TIMEOUT).execute(cwd=str(cwd))
    cells = {cell.id: cell for cell in notebook.cells}
    return json.loads(text(cells["facts"])), cells


def text(cell: nbformat.NotebookNode) -> str:
    return "".join(o.text for o in cell.outputs if o.get("name") == "stdout")


def assert_draws(cell: nbformat.NotebookNode) -> None:
    (jpeg,) = (o.data["image/jpeg"] for o in cell.outputs if "image/jpeg" in o.get("data", {}))
    image = Image.open(io.BytesIO(base64.b64decode(jpeg)))
    assert min(image.size) > 300
    assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 1000  # not blank


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, this checkout's package, and no files outside of `tmp_path`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.parametrize("path", [NOTEBOOK, VIDEO_NOTEBOOK], ids=lambda path: path.name)
def test_notebook_is_stored_as_it_ran(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}  # no error


@pytest.mark.usefixtures("environment")
def test_notebook_runs_as_described(tmp_path: Path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    facts, cells = execute(notebook, tmp_path, FACTS)

    assert facts["missing"]
    assert set(facts["missing"]) <= set(facts["new"])
    assert all("nonlocal" in key for key in facts["new"])
    assert facts["unexpected"] == []
    assert text(cells["identity"]).count("bit-identical: True") == 5

    results = facts["results"]
    assert results["with a block, not trained"] == results["baseline"]
    assert results["baseline"]["AP50"] > 1  # it has learned something; chance finds nothing
    assert results["baseline, trained on"] != results["baseline"]
    assert results["with a block, trained on"] != results["baseline"]
    table = text(cells["compare"])
    for name, result in results.items():
        assert f"{name:26}{result['AP']:6.1f}{result['AP50']:7.1f}\n" in table

    fresh, trained = facts["added"]
    assert fresh == 0
    assert 0 < trained < 0.01  # "a small fraction of a percent"

    for name in ("look-at-data", "predictions", "attention"):
        assert_draws(cells[name])


@pytest.mark.usefixtures("environment")
def test_video_notebook_runs_as_described(tmp_path: Path):
    notebook = nbformat.read(VIDEO_NOTEBOOK, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    for name, (long, short) in SHORTER.items():
        assert cells[name].source.count(long) == 1
        cells[name].source = cells[name].source.replace(long, short)
    facts, cells = execute(notebook, tmp_path, VIDEO_FACTS)

    assert len(set(facts["trained"])) == 10  # "ten videos"
    assert len(set(facts["evaluated"]) - set(facts["trained"])) == 20
    assert all("nonlocal" in key for key in facts["new"])
    assert {*facts["missing"]} - {*facts["new"]} == {"classifier.weight", "classifier.bias"}
    assert "bit-identical: True" in text(cells["identity"])
    table = text(cells["compare"])
    for name, result in facts["results"].items():
        assert f"{name:18}{result['videos']:8.1f}{result['clips']:8.1f}\n" in table
        assert result["videos"] % 5 == pytest.approx(0)  # of 20 videos
    assert len(facts["results"]) == 2
    assert text(cells["predictions"]).count(" to ") == 3  # the clips of the last video
    for name in ("look-at-data", "attention"):
        assert_draws(cells[name])
