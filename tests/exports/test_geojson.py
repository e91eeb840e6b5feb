import gzip
import json
import uuid

import numpy as np
import pytest
import shapely

from cellvit_jax import exports
from tests.exports.samples import AWKWARD, CLASSES, VARIANTS, measured, sample


def features(cells, folder):
    exports.write(cells, folder / "cells.geojson")
    collection = json.loads((folder / "cells.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def check_rfc_7946(feature):
    assert feature.keys() == {"type", "id", "geometry", "properties"}
    assert feature["type"] == "Feature"
    coordinates = feature["geometry"]["coordinates"]
    single = feature["geometry"]["type"] == "Polygon"
    assert single or feature["geometry"]["type"] == "MultiPolygon"
    for polygon in [coordinates] if single else coordinates:
        for hole, ring in enumerate(polygon):
            points = np.array(ring, float)
            assert points.shape == (max(len(points), 4), 2)
            assert np.isfinite(points).all()
            assert (points[0] == points[-1]).all()
            assert shapely.is_ccw(shapely.linearrings(points)) == (hole == 0)


def check_qupath(feature):
    properties = feature["properties"]
    assert uuid.UUID(feature["id"]).version == 5
    assert properties["objectType"] == "detection"
    assert all(0 <= c <= 255 and isinstance(c, int) for c in properties["classification"]["color"])
    assert len(properties["classification"]["color"]) == 3
    assert all(isinstance(value, float) for value in properties["measurements"].values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_file_keeps_the_rules_of_geojson_and_of_qupath(variant, tmp_path):
    for feature in features(VARIANTS[variant], tmp_path):
        check_rfc_7946(feature)
        check_qupath(feature)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_cell_is_a_detection_with_a_valid_closed_polygon(variant, tmp_path):
    found = features(VARIANTS[variant], tmp_path)
    assert len(found) == len(VARIANTS[variant])
    for feature in found:
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area > 0
        assert geometry.geom_type in ("Polygon", "MultiPolygon")
        for ring in shapely.get_rings(geometry):
            assert ring.is_closed
        assert feature["properties"]["objectType"] == "detection"


def test_polygons_lie_half_a_pixel_off_the_contours(tmp_path):
    geometry = features(sample(), tmp_path)[1]["geometry"]
    assert geometry["coordinates"] == [[[16.5, 0.5], [25.5, 0.5], [16.5, 9.5], [16.5, 0.5]]]


def test_class_colour_and_measurements(tmp_path):
    cells = sample()
    properties = features(cells, tmp_path)[0]["properties"]
    assert properties["classification"] == {"name": CLASSES[1][0], "color": [255, 0, 0]}
    measured = properties["measurements"]
    assert measured.pop("Area µm^2") == pytest.approx(cells.column("area")[0] / 16, abs=1e-4)
    assert measured.pop("Type probability") == pytest.approx(cells.column("type_prob")[0], abs=1e-4)
    expected = cells.table["probabilities"][0].as_py()[1:]
    assert list(measured) == [f"Probability {name}" for name, _ in CLASSES.values()]
    np.testing.assert_allclose(list(measured.values()), expected, atol=1e-4)


def test_the_area_is_in_pixels_where_the_resolution_is_unknown(tmp_path):
    cells = sample(mpp=None)
    measured = features(cells, tmp_path)[0]["properties"]["measurements"]
    assert measured["Area px^2"] == cells.column("area")[0]


def test_shape_and_stain_are_measurements_where_they_are_known(tmp_path):
    cells = measured()
    found = features(cells, tmp_path)[3]["properties"]["measurements"]
    assert found["Perimeter µm"] == pytest.approx(cells.column("perimeter")[3] / 4, abs=1e-4)
    for name, column in [
        ("Eccentricity", "eccentricity"),
        ("Solidity", "solidity"),
        ("Hematoxylin OD mean", "haematoxylin_mean"),
        ("Hematoxylin OD std dev", "haematoxylin_sd"),
    ]:
        assert found[name] == pytest.approx(cells.column(column)[3], abs=1e-4)


def test_names_come_back_as_they_are(tmp_path):
    found = features(VARIANTS["awkward-names"], tmp_path)
    names = [feature["properties"]["classification"]["name"] for feature in found[:2]]
    assert names == [name for name, _ in AWKWARD.values()]


def test_ids_are_uuids_of_their_own(tmp_path):
    ids = [feature["id"] for feature in features(sample(40), tmp_path)]
    assert len(set(ids)) == 40
    namespace = uuid.uuid5(uuid.NAMESPACE_DNS, "cellvit-jax")
    assert ids[0] == str(uuid.uuid5(namespace, "1 4.568 4.568"))


def test_more_cells_than_a_batch(tmp_path):
    found = features(sample(8_200, probabilities=False), tmp_path)
    assert len({feature["id"] for feature in found}) == 8_200


def test_compressed_is_the_same_text(tmp_path):
    features(sample(), tmp_path)
    exports.write(sample(), tmp_path / "cells.geojson.gz")
    unpacked = gzip.decompress((tmp_path / "cells.geojson.gz").read_bytes())
    assert unpacked == (tmp_path / "cells.geojson").read_bytes()
