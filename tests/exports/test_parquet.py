import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from cellvit_jax import exports
from cellvit_jax.errors import InputError
from tests.exports.samples import CLASSES, SHAPE, STAIN, VARIANTS, measured, sample


def written(cells, folder):
    path = folder / "cells.parquet"
    exports.write(cells, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_cells_come_back_equal(variant, tmp_path):
    cells = VARIANTS[variant]
    again = exports.read_cells(written(cells, tmp_path))
    assert again.table.equals(cells.table)
    assert (again.classes, again.mpp) == (cells.classes, cells.mpp)


def test_more_cells_than_a_row_group_come_back_equal(tmp_path):
    cells = sample(70_000, probabilities=False)
    path = written(cells, tmp_path)
    assert pq.ParquetFile(path).num_row_groups == 2
    assert exports.read_cells(path).table.equals(cells.table)


def test_a_folder_stands_for_the_table_in_it(tmp_path):
    written(sample(), tmp_path)
    assert len(exports.read_cells(tmp_path)) == 12


def test_columns_that_the_format_does_not_know_are_kept(tmp_path):
    cells = sample().replace_columns(density=np.arange(12.0))
    assert exports.read_cells(written(cells, tmp_path)).column("density")[5] == 5


def test_the_columns_are_the_documented_ones(tmp_path):
    table = pq.read_table(written(sample(), tmp_path))
    assert table.schema.names == [
        *("id", "centroid_x", "centroid_y", "bbox_r0", "bbox_c0", "bbox_r1", "bbox_c1"),
        *("area", "area_um2", "type", "type_name", "type_prob", "geometry", "probabilities"),
    ]
    assert table["type_name"].to_pylist()[:2] == [CLASSES[1][0], CLASSES[2][0]]
    np.testing.assert_allclose(table["area_um2"], np.asarray(table["area"]) / 16)


def test_polygons_lie_half_a_pixel_off_the_contours(tmp_path):
    polygon = shapely.from_wkb(pq.read_table(written(sample(), tmp_path))["geometry"][1].as_py())
    assert polygon.exterior.coords[:] == [(16.5, 0.5), (16.5, 9.5), (25.5, 0.5), (16.5, 0.5)]


def test_the_area_is_null_where_the_resolution_is_unknown(tmp_path):
    table = pq.read_table(written(sample(mpp=None), tmp_path))
    assert table["area_um2"].null_count == 12
    assert table["area_um2"].type == pa.float64()


def test_perimeters_are_in_microns_too(tmp_path):
    table = pq.read_table(written(measured(), tmp_path))
    assert table.schema.names[8:14] == [
        *("area_um2", "type", "type_name", "type_prob", "geometry", "probabilities"),
    ]
    assert table.schema.names[14:] == [*SHAPE[:1], "perimeter_um", *SHAPE[1:], *STAIN]
    np.testing.assert_allclose(table["perimeter_um"], np.asarray(table["perimeter"]) / 4)


def test_a_table_comes_back_block_by_block(tmp_path):
    cells = sample(70_000, probabilities=False)
    blocks = list(exports.iter_cells(written(cells, tmp_path)))
    assert [len(block) for block in blocks] == [0, 65_536, 4_464]
    assert {(block.mpp, *block.classes) for block in blocks} == {(0.25, 1, 2)}
    assert pa.concat_tables([block.table for block in blocks]).equals(cells.table)


def test_tokens_make_row_groups_smaller(tmp_path):
    wide = np.zeros(20 * 2**20, np.float32)
    cells = sample(20).replace_columns(token=pa.FixedSizeListArray.from_arrays(wide, 2**20))
    assert pq.ParquetFile(written(cells, tmp_path)).metadata.row_group(0).num_rows == 16


def test_damage_further_on_is_an_error_when_it_is_reached(tmp_path):
    path = written(sample(70_000, probabilities=False), tmp_path)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 200)
    blocks = exports.iter_cells(path)
    assert len(next(blocks)) == 0
    assert len(next(blocks)) == 65_536
    with pytest.raises(InputError, match="not a readable Parquet file"):
        next(blocks)


def test_the_metadata_say_what_the_numbers_mean(tmp_path):
    metadata = pq.read_schema(written(sample(), tmp_path)).metadata
    assert metadata[b"format_version"] == b"1"
    assert json.loads(metadata[b"mpp"]) == 0.25
    assert json.loads(metadata[b"classes"])["2"] == {
        "name": "Inflammatory",
        "color": [34, 221, 77],
    }
    geometry = json.loads(metadata[b"geo"])["columns"]["geometry"]
    assert (geometry["encoding"], geometry["crs"]) == ("WKB", None)


def test_geopandas_opens_it(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_parquet(written(sample(), tmp_path))
    assert len(frame) == 12
    assert frame.crs is None
    assert frame.geometry.iloc[0].area > 50


def test_what_is_no_table_of_cells_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("not a table")
    pq.write_table(pa.table({"id": [1]}), tmp_path / "other.parquet")
    for name, reason in [
        ("text.parquet", "not a readable Parquet file"),
        ("other.parquet", "not written by cellvit-jax"),
        ("absent.parquet", "does not exist"),
        (".", "does not exist"),
    ]:
        with pytest.raises(InputError, match=reason):
            exports.read_cells(tmp_path / name)


def test_a_file_of_a_later_version_is_refused(tmp_path):
    path = written(sample(), tmp_path)
    table = pq.read_table(path)
    metadata = table.schema.metadata | {b"format_version": b"2"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="format version 2, this cellvit-jax reads up to 1"):
        exports.read_cells(path)
