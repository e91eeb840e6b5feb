"""`cellvit-jax export`, from a table to more files."""

import sys
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellvit_jax import cli, exports
from cellvit_jax.exports import results
from tests.exports.samples import measured, sample

NONE = 'no "n\'e" [x] ü'
KINDS = [kind for kind in results.FILES if kind != "spatialdata.zarr"]


@pytest.fixture
def call(call):
    return partial(call, "export")


@pytest.fixture
def run(tmp_path):
    """Two results, one of them empty, and what else may lie there."""
    for name, cells in [("one", measured(40, tokens=4)), (NONE, sample(0))]:
        (tmp_path / name).mkdir()
        exports.write(cells, tmp_path / name / "cells.parquet")
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "cells.parquet").touch()
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_the_choices_are_those_of_the_files():
    assert list(cli.Later.__args__) == list(results.FILES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_what_write_makes_of_the_cells(kind, call, run, tmp_path):
    name = results.FILES[kind]
    code, out, err = call(run / "one", "--to", kind)
    assert (code, err) == (0, "")
    assert out == f"{run / 'one' / name}: 40 cells\n"
    exports.write(exports.read_cells(run / "one"), tmp_path / name)
    if kind not in ("h5ad", "zarr"):  # whose bytes differ from run to run
        assert (run / "one" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_folder_of_results_is_exported_whole(call, run):
    code, out, _ = call(run, "--to", "csv", "geojson.gz", "csv")
    assert code == 0
    assert len(out.splitlines()) == 4
    for name in ("one", NONE):
        files = {path.name for path in (run / name).iterdir()}
        assert files == {"cells.parquet", "cells.csv", "cells.geojson.gz"}


def test_what_is_there_is_kept_unless_told_otherwise(call, run):
    (run / "one" / "cells.csv").write_text("mine")
    code, out, err = call(run, "--to", "json", "csv")
    assert (code, out) == (2, "")
    assert "--overwrite" in err
    assert (run / "one" / "cells.csv").read_text() == "mine"
    assert not (run / NONE / "cells.json").exists()
    assert call(run, "--to", "json", "csv", "--overwrite", "--quiet") == (0, "", "")
    assert (run / "one" / "cells.csv").read_text() != "mine"


def test_the_graph_may_be_of_nearest_neighbours(call, run):
    call(run / "one", "--to", "graph.npz")
    delaunay = (run / "one" / "graph.npz").read_bytes()
    arguments = ("--to", "graph.npz", "--neighbours", 1, "--max-length", 10, "--overwrite")
    assert call(run / "one", *arguments)[0] == 0
    assert len((run / "one" / "graph.npz").read_bytes()) < len(delaunay)


def damaged(run):
    (run / "one" / "cells.parquet").write_bytes(b"PAR1")


def another_table(run):
    pq.write_table(pa.table({"id": [1]}), run / "one" / "cells.parquet")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("absent", "--to", "csv"), "absent does not exist"),
        (("one/cells.parquet", "--to", "csv"), "is a file"),
        (("notes", "--to", "csv"), "holds no cells.parquet"),
        ((".", "--to"), "say with --to"),
        ((".", "--to", "csv", "graph.npz", "--neighbours", "0"), "1 or more"),
        ((".", "--to", "csv", "h5ad", "--max-length", "-3"), "over 0"),
    ],
)
def test_bad_arguments_are_one_sentence_before_anything_is_written(call, run, arguments, part):
    code, out, err = call(run / arguments[0], *arguments[1:])
    assert (code, out) == (2, "")
    assert part in err
    assert err.count("\n") == 1
    assert not list(run.glob("*/cells.csv"))


@pytest.mark.parametrize(
    ("spoil", "part"), [(damaged, "not a readable Parquet"), (another_table, "holds no cells")]
)
def test_a_bad_table_is_known_before_anything_is_written(call, run, spoil, part):
    spoil(run)
    code, out, err = call(run, "--to", "csv")
    assert (code, out) == (2, "")
    assert part in err
    assert not list(run.glob("*/cells.csv"))


def test_a_missing_extra_is_known_before_anything_is_written(call, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    code, _, err = call(run, "--to", "csv", "spatialdata.zarr")
    assert code == 2
    assert "cellvit-jax[spatialdata]" in err
    assert not list(run.glob("*/cells.csv"))
