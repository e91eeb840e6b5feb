import csv

import numpy as np
import pytest

from cellvit_jax import exports
from tests.exports.samples import VARIANTS, measured, sample


def rows(cells, folder):
    exports.write(cells, folder / "cells.csv")
    with (folder / "cells.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_number_of_the_table_comes_back(variant, tmp_path):
    cells = VARIANTS[variant]
    found = rows(cells, tmp_path)
    assert len(found) == len(cells)
    for name in set(cells.table.schema.names) - {"contour", "token", "probabilities"}:
        values = np.array([row[name] for row in found], cells.column(name).dtype)
        np.testing.assert_array_equal(values, cells.column(name))


@pytest.mark.parametrize("variant", ["twelve", "awkward-names"])
def test_classes_are_named(variant, tmp_path):
    cells = VARIANTS[variant]
    for row, probabilities in zip(
        rows(cells, tmp_path), cells.table["probabilities"].to_pylist(), strict=True
    ):
        assert row["type_name"] == cells.classes[int(row["type"])][0]
        found = [float(row[f"probability_{name}"]) for name, _ in cells.classes.values()]
        np.testing.assert_allclose(found, probabilities[1:], rtol=1e-6)


def test_sizes_are_in_microns_where_the_resolution_is_known(tmp_path):
    row = rows(measured(), tmp_path)[0]
    assert float(row["area_um2"]) == float(row["area"]) / 16
    assert float(row["perimeter_um"]) == pytest.approx(float(row["perimeter"]) / 4, rel=1e-6)
    assert rows(sample(mpp=None), tmp_path)[0]["area_um2"] == ""


def test_nothing_has_the_same_header(tmp_path):
    rows(sample(0), tmp_path)
    header = (tmp_path / "cells.csv").read_bytes().splitlines()
    rows(sample(), tmp_path)
    assert header == (tmp_path / "cells.csv").read_bytes().splitlines()[:1]
