"""Notebooks are stored clean, and run from top to bottom."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cellvit_jax import read_cells
from tests.shared import DATA, SHARED

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


@pytest.mark.usefixtures("home")
def test_from_200_clicks_to_a_classifier(work, monkeypatch):
    pytest.importorskip("optax")
    pytest.importorskip("matplotlib")
    real = SHARED / "data" / "cellvitpp-examples" / "Example-Detection"
    clicks = real if real.exists() else DATA / "cellvitpp" / "detection"
    monkeypatch.setenv("CLICKS", str(clicks))
    outputs = run("from_200_clicks_to_a_classifier", work)
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 3
    assert (work / "my-head" / "config.json").exists()
    assert json.loads((work / "cells.geojson").read_text())["features"]
