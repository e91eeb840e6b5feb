"""Runs where the extra `spatialdata` is installed: it is too heavy for the developers' own."""

import importlib.util
import sys

import numpy as np
import pytest
import shapely

from cellvit_jax import exports
from cellvit_jax.errors import MissingExtraError
from tests.exports.samples import VARIANTS, in_blocks, measured, sample

NAME = "cells.spatialdata.zarr"


@pytest.fixture
def spatialdata():
    if not importlib.util.find_spec("spatialdata"):
        pytest.skip("needs the extra spatialdata")
    import spatialdata

    return spatialdata


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of spatialdata's dependencies
@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_table_come_back_joined(variant, spatialdata, tmp_path):
    cells = VARIANTS[variant]
    exports.write(in_blocks(cells, 5), tmp_path / NAME)
    found = spatialdata.read_zarr(tmp_path / NAME)
    table = found.tables["table"]
    assert table.obs["id"].tolist() == cells.column("id").tolist()
    if not len(cells):
        return
    shapes = found.shapes["cells"]
    assert shapes.index.tolist() == cells.column("id").tolist()
    assert shapely.is_valid(shapes.geometry.to_numpy()).all()
    elements, matched = spatialdata.join_spatialelement_table(found, ["cells"], table_name="table")
    assert len(elements["cells"]) == len(matched) == len(cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_polygons_are_corner_based_and_a_second_write_replaces_the_first(spatialdata, tmp_path):
    exports.write(sample(5), tmp_path / NAME)
    exports.write(measured(tokens=4), tmp_path / NAME, k=2)
    found = spatialdata.read_zarr(tmp_path / NAME)
    assert found.shapes["cells"].geometry[2].bounds == (16.5, 0.5, 25.5, 9.5)
    assert found.tables["table"].X.shape == (12, 4)
    assert np.diff(found.tables["table"].obsp["spatial_connectivities"].indptr).min() >= 2
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(MissingExtraError, match=r"cellvit-jax\[spatialdata\]"):
        exports.write(sample(), tmp_path / NAME)
    assert not list(tmp_path.iterdir())
