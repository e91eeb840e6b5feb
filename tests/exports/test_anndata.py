import sys

import numpy as np
import pytest

from cellvit_jax import exports
from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import MissingExtraError, OutputError
from cellvit_jax.exports.anndata import to_anndata
from tests.exports.samples import CLASSES, VARIANTS, in_blocks, measured, sample

anndata = pytest.importorskip("anndata")
NAMES = ["cells.h5ad", "cells.zarr"]
# Zarr is many small files: some of the variants are enough
CASES = [("cells.h5ad", variant) for variant in VARIANTS]
CASES += [("cells.zarr", variant) for variant in ("none", "one", "measured", "awkward-names")]


def written(cells, path, **edges):
    exports.write(cells, path, **edges)
    return (anndata.read_h5ad if path.suffix == ".h5ad" else anndata.read_zarr)(path)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_cells_are_observations(name, variant, tmp_path):
    cells = VARIANTS[variant]
    found = written(cells, tmp_path / name)
    assert found.obs_names.tolist() == [str(i) for i in cells.column("id")]
    for column in set(cells.table.schema.names) - {"contour", "token", "probabilities"}:
        np.testing.assert_array_equal(found.obs[column], cells.column(column))
    np.testing.assert_array_equal(found.obsm["spatial"][:, 0], cells.column("centroid_x"))
    np.testing.assert_array_equal(found.obsm["spatial"][:, 1], cells.column("centroid_y"))
    assert found.uns.get("mpp") == cells.mpp


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_x(name, tmp_path):
    cells = sample(9_000, tokens=5, probabilities=False)
    found = written(in_blocks(cells, 4_000), tmp_path / name)
    expected = cells.table["token"].combine_chunks().flatten().to_numpy().reshape(-1, 5)
    np.testing.assert_array_equal(found.X, expected)
    assert found.X.dtype == np.float32
    assert found.var_names.tolist() == [f"token_{i}" for i in range(5)]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_types_are_categories_with_colours(name, variant, tmp_path):
    cells = VARIANTS[variant]
    found = written(cells, tmp_path / name)
    names = found.obs["type_name"].cat.categories.tolist()
    assert names == [
        n for n, _ in (cells.classes or {1: ("class 1", 0), 2: ("class 2", 0)}).values()
    ]
    assert found.obs["type_name"].cat.codes.tolist() == (cells.column("type") - 1).tolist()
    assert len(found.uns["type_name_colors"]) == len(names)
    if cells.classes == CLASSES:
        assert list(found.uns["type_name_colors"]) == ["#ff0000", "#22dd4d"]


def test_probabilities_have_names(tmp_path):
    cells = sample()
    found = written(cells, tmp_path / "cells.h5ad")
    expected = np.array(cells.table["probabilities"].to_pylist(), np.float32)
    np.testing.assert_array_equal(found.obsm["probabilities"], expected)
    assert list(found.uns["probabilities"]) == ["Background", *(n for n, _ in CLASSES.values())]


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_in_obsp_under_squidpys_names(name, tmp_path):
    found = written(sample(40), tmp_path / name, k=3)
    keys = found.uns["spatial_neighbors"]
    distances = found.obsp[keys["distances_key"]].toarray()
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(found.obsp[keys["connectivities_key"]].toarray(), distances > 0)
    assert ((distances > 0).sum(1) >= 3).all()
    i, j = np.nonzero(distances)
    expected = np.linalg.norm(found.obsm["spatial"][i] - found.obsm["spatial"][j], axis=1) / 4
    np.testing.assert_allclose(distances[i, j], expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_in_memory_it_is_the_same(name, tmp_path):
    cells = measured(30, tokens=4)
    found, expected = written(in_blocks(cells, 7), tmp_path / name), to_anndata(cells)
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.obs.equals(expected.obs)
    assert found.uns.keys() == expected.uns.keys()
    assert (found.obsp["spatial_distances"] != expected.obsp["spatial_distances"]).nnz == 0


def test_classes_of_one_name_are_one_category(tmp_path):
    classes = {1: ("Other", (1, 2, 3)), 2: ("Other", (4, 5, 6)), 3: ("Dead", (7, 8, 9))}
    found = written(sample(classes=classes), tmp_path / "cells.h5ad")
    assert found.obs["type_name"].cat.categories.tolist() == ["Other", "Dead"]
    assert list(found.uns["type_name_colors"]) == ["#010203", "#070809"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_replaced_when_all_is_written(name, tmp_path):
    written(sample(), tmp_path / name)

    def failing():
        yield sample(3)
        raise ValueError("a fault of the source")

    with pytest.raises(ValueError, match="a fault"):
        exports.write(failing(), tmp_path / name)
    assert len(written(sample(5), tmp_path / name)) == 5
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(OutputError, match="cannot be written"):
        exports.write(sample(), tmp_path / "absent" / name)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_extra_the_error_names_it(name, tmp_path, monkeypatch):
    for module in ("anndata", "anndata.io", "h5py", "zarr"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"cellvit-jax\[anndata\]"):
        exports.write(sample(), tmp_path / name)


def test_a_table_without_optional_columns_is_enough(tmp_path):
    cells = sample()
    few = Cells(cells.table.select(["id", "centroid_x", "centroid_y", "type"]), cells.classes)
    assert len(written(few, tmp_path / "cells.h5ad").obs.columns) == 5
