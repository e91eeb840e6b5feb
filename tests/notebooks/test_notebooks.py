"""Notebooks are stored clean, and run from top to bottom."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cellvit_jax import read_cells
from tests.shared import DATA, shared

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where Jupyter keeps its own files, apart from those of whoever runs the tests."""
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


@pytest.fixture
def work(tmp_path):
    """An empty folder for a notebook to run in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(name: str, folder: Path) -> list[dict]:
    """The outputs of a notebook that runs in `folder`."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


@pytest.mark.usefixtures("home")
def test_segment_an_image(work):
    outputs = run("segment_an_image", work)
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 2
    assert shown.count("text/markdown") == 2
    assert {path.name for path in work.iterdir()} == {"cells.geojson", "cells.parquet"}
    cells = read_cells(work / "cells.parquet")
    features = json.loads((work / "cells.geojson").read_text())["features"]
    assert len(features) == len(cells) > 0


@pytest.fixture
def from_clicks(home, work, monkeypatch):
    """Runs the notebook of clicks on a folder of them: what it prints, and its report."""
    pytest.importorskip("optax")
    pytest.importorskip("matplotlib")

    def run_on(clicks: Path) -> tuple[str, dict]:
        monkeypatch.setenv("CLICKS", str(clicks))
        outputs = run("from_200_clicks_to_a_classifier", work)
        shown = [kind for output in outputs for kind in output.get("data", {})]
        assert shown.count("image/png") == 4
        assert json.loads((work / "cells.geojson").read_text())["features"]
        said = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
        return said, json.loads((work / "my-head" / "report.json").read_text())

    return run_on


@pytest.mark.slow
def test_from_200_clicks_to_a_classifier(from_clicks):
    said, report = from_clicks(shared("data/cellvitpp-examples/Example-Detection"))
    assert "train: 10 images, 200 points" in said
    assert "test: 2 images" in said
    assert list(report["scores"]) == ["cross-validation, 3 folds", "test"]
    assert sum(report["annotated"]) == 200
    validated, test = report["scores"].values()
    assert validated["count"] == sum(report["found"]) > 150
    assert test["count"] > 50
    assert validated["auroc"] > 0.6
    assert 0.5 < validated["majority"] < 0.7


def test_fewer_clicks_than_200_are_all_taken(from_clicks):
    said, report = from_clicks(DATA / "cellvitpp" / "detection")
    assert "train: 1 images, 18 points" in said
    assert list(report["scores"]) == ["validation"]
    assert report["annotated"] == [0, 12, 12, 12]  # the one image is both parts of the one fold
