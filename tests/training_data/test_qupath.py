import gzip
import json

import numpy as np
import pytest
import shapely

from cellvit_jax import exports
from cellvit_jax.cells import Cells
from cellvit_jax.cells.measure import measure, numbered
from cellvit_jax.cells.planes import Planes
from cellvit_jax.data import open_dataset
from cellvit_jax.data.geojson import read_cells
from cellvit_jax.data.layouts import qupath
from cellvit_jax.errors import InputError
from tests.training_data.makers import feature, field, outlines, png, type_of
from tests.training_data.same import assert_same_nuclei

CLASSES = {1: ("tumour", (255, 0, 0)), 2: ("lymphocyte", (0, 255, 0))}


def rectangle(x0, y0, x1, y1, name=None, kind="annotation"):
    return feature([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], name, kind)


def write(path, features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture
def folder(tmp_path):
    """An image beside the GeoJSON that this package exports of its cells."""
    sample = field()
    _, first, ids = np.unique(sample.instances, return_index=True, return_inverse=True)
    in_raster_order = np.argsort(np.argsort(first))[ids].astype(np.int32)
    instances = in_raster_order.reshape(sample.instances.shape)
    empty = np.zeros(instances.shape, np.float32)
    table, _ = measure(instances, Planes(np.uint8(instances > 0), empty, sample.types))
    exports.write(Cells(numbered(table), CLASSES, 0.25), tmp_path / "made.geojson")
    png(tmp_path / "made.png", sample.image)
    return tmp_path


def test_what_was_exported_comes_back_pixel_by_pixel(folder):
    dataset = open_dataset(folder)
    (read,) = dataset.samples
    sample = field()
    assert (read.name, dataset.classes) == ("made", ("lymphocyte", "tumour"))
    assert_same_nuclei(read.instances, sample.instances)
    np.testing.assert_array_equal(read.types, np.array([0, 2, 1])[sample.types])


def test_classes_have_the_order_that_is_asked_for_and_others_no_type(folder):
    pair = folder / "made.png", folder / "made.geojson"
    (read,) = qupath.read(*pair, classes=("tumour",)).samples
    np.testing.assert_array_equal(read.types, field().types == 1)
    (read,) = qupath.read(*pair, classes=("tumour", "lymphocyte")).samples
    np.testing.assert_array_equal(read.types, field().types)


def test_a_class_that_no_cell_is_of_is_said(folder):
    with pytest.warns(UserWarning, match="class Tumor; there are lymphocyte, tumour"):
        dataset = qupath.read(folder, folder, classes=("tumour", "Tumor"))
    assert dataset.classes == ("tumour", "Tumor")


def test_a_slide_without_regions_is_too_large(folder, monkeypatch):
    monkeypatch.setattr(qupath, "MAX_PIXELS", 96 * 128 - 1)
    with pytest.raises(InputError, match=r'rectangles of the class "Region\*"'):
        open_dataset(folder)


def test_a_corrected_cell_has_its_new_shape_and_class(folder):
    content = json.loads((folder / "made.geojson").read_text())
    changed = rectangle(40, 40, 50, 44, "mitosis", "detection")
    content["features"][0] |= {k: changed[k] for k in ("geometry", "properties")}
    del content["features"][1]
    write(folder / "made.geojson", content["features"])
    dataset = open_dataset(folder)
    (read,) = dataset.samples
    new = read.types == dataset.classes.index("mitosis") + 1
    assert np.argwhere(new).min(0).tolist() == [40, 40]
    assert np.argwhere(new).max(0).tolist() == [43, 49]
    assert len(np.unique(read.instances)) == field().instances.max()


def cellvit_export(sample):
    """A multipolygon of all cells for each class, in a bare list, as CellViT writes it."""
    features = []
    for kind, (name, color) in CLASSES.items():
        cells = [p for i, p in outlines(sample).items() if type_of(sample, i) == kind]
        rings = [[[*p.tolist(), p[0].tolist()]] for p in cells]
        geometry = {"type": "MultiPolygon", "coordinates": rings}
        label = {"objectType": "annotation", "classification": {"name": name, "color": color}}
        features.append({"type": "Feature", "geometry": geometry, "properties": label})
    return features


def test_the_export_of_cellvit_is_read_cell_by_cell(tmp_path):
    sample = field()
    png(tmp_path / "a.png", sample.image)
    with gzip.open(tmp_path / "a.geojson.gz", "wt") as file:
        json.dump(cellvit_export(sample), file)
    (read,) = open_dataset(tmp_path).samples
    assert_same_nuclei(read.instances, sample.instances)


def test_regions_become_fields_and_other_areas_nothing(tmp_path):
    sample = field()
    cells = [feature(p, CLASSES[type_of(sample, i)][0]) for i, p in outlines(sample).items()]
    areas = [
        rectangle(30, 20, 90, 70, "Region*"),
        rectangle(0, 0, 60, 90),  # around many cells, without a class
        rectangle(10, 5, 70, 80, "Tumor"),  # an area of tissue, not of annotation
        rectangle(2, 2, 5, 5, "Ignore*"),
    ]
    png(tmp_path / "a.png", sample.image)
    write(tmp_path / "a.geojson", cells + areas)
    first, second = open_dataset(tmp_path).samples
    assert {first.name, second.name} == {"a_30_20", "a_0_0"}
    one = first if first.name == "a_30_20" else second
    np.testing.assert_array_equal(one.image, sample.image[20:70, 30:90])
    assert_same_nuclei(one.instances, sample.instances[20:70, 30:90])


def test_of_a_cell_the_nucleus_counts(tmp_path):
    cell = rectangle(10, 10, 40, 40, "tumour", "cell")
    cell["nucleusGeometry"] = rectangle(20, 20, 25, 25)["geometry"]
    write(tmp_path / "a.geojson", [cell])
    assert shapely.bounds(read_cells(tmp_path / "a.geojson").shapes).tolist() == [[20, 20, 25, 25]]


def test_a_nucleus_that_a_person_drew_needs_no_class(tmp_path):
    png(tmp_path / "a.png", field().image)
    write(tmp_path / "a.geojson", [rectangle(10, 10, 20, 20), rectangle(40, 10, 50, 20)])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ()
    assert dataset.samples[0].instances.max() == 2
    assert dataset.samples[0].types is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as GeoJSON"),
        ('[{"type": "Feature"}]', "no GeoJSON of outlined cells"),
        ('{"features": [3]}', "no GeoJSON of outlined cells"),
        ('[{"geometry": {"type": "Polygon", "coordinates": 7}}]', "no GeoJSON of outlined cells"),
        ("[]", "no outlined cell"),
    ],
)
def test_what_is_no_geojson_is_refused(text, message, tmp_path):
    png(tmp_path / "a.png", field().image)
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path)


def test_a_geojson_without_its_image_is_named(folder):
    (folder / "made.geojson").rename(folder / "other.geojson")
    with pytest.raises(InputError, match=r"other\.geojson has no image"):
        open_dataset(folder)


def test_images_of_different_resolution_are_no_set(folder):
    import tifffile

    for name, per_cm in (("fine", 40_000), ("coarse", 20_000)):
        tags = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"{name}.tif", field().image, photometric="rgb", **tags)
        (folder / f"{name}.geojson").write_bytes((folder / "made.geojson").read_bytes())
    with pytest.raises(InputError, match=r"fine\.tif has 0\.25 .*coarse\.tif 0\.5"):
        open_dataset(folder)
    assert qupath.read(folder, folder, mpp=0.3).mpp == 0.3


def pointed(points, name, kind="MultiPoint"):
    properties = {"objectType": "annotation", "classification": {"name": name}}
    geometry = {"type": kind, "coordinates": points}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_points_count_where_there_are_any_and_outlines_do_not(tmp_path):
    png(tmp_path / "clicks.png", np.zeros((60, 80, 3), np.uint8))
    clicks = [
        pointed([[10.5, 20.5], [70, 50]], "B"),
        pointed([3.5, 4.5], "A", "Point"),
        pointed([[1, 1]], "Ignore*"),
        rectangle(5, 5, 9, 9, "C", kind="detection"),
    ]
    write(tmp_path / "clicks.geojson", clicks)
    dataset = open_dataset(tmp_path)
    assert (dataset.classes, dataset.outlined) == (("A", "B"), False)
    (sample,) = dataset.samples
    assert sample.points.tolist() == [[10, 20, 2], [69.5, 49.5, 2], [3, 4, 1]]
    assert sample.instances.shape == (60, 80)
    assert not sample.instances.any()
    outlined = qupath.read(tmp_path, tmp_path, pointed=False)
    assert (outlined.classes, outlined.outlined) == (("C",), True)
    write(tmp_path / "clicks.geojson", clicks[:1])
    with pytest.raises(InputError, match="only points"):
        qupath.read(tmp_path, tmp_path, pointed=False)


def test_each_file_counts_by_its_points_or_else_by_its_outlines(tmp_path):
    image = np.zeros((60, 80, 3), np.uint8)
    for name in ("clicked", "empty", "drawn"):
        png(tmp_path / f"{name}.png", image)
    unclassed = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 3]}}
    write(tmp_path / "clicked.geojson", [pointed([[10, 20]], "B"), rectangle(5, 5, 9, 9, "C")])
    write(tmp_path / "empty.geojson", [unclassed])
    write(tmp_path / "drawn.png.geojson", [rectangle(30, 10, 40, 20, "A")])
    with pytest.warns(UserWarning, match=r"1 of 3 files hold no cells .*: empty\.geojson"):
        dataset = open_dataset(tmp_path)
    assert (dataset.classes, dataset.outlined) == (("A", "B"), False)
    clicked, drawn = dataset.samples
    assert (clicked.name, drawn.name) == ("clicked", "drawn")
    assert clicked.points.tolist() == [[9.5, 19.5, 2]]
    assert drawn.points is None
    assert np.argwhere(drawn.types == 1)[[0, -1]].tolist() == [[10, 30], [19, 39]]
    with pytest.warns(UserWarning, match="1 of 3"):
        outlined = qupath.read(tmp_path, tmp_path, pointed=False)
    assert (outlined.classes, len(outlined.samples), outlined.outlined) == (("A", "C"), 2, True)


def test_a_region_without_cells_is_a_field(folder):
    png(folder / "free.png", field().image)
    write(folder / "free.geojson", [rectangle(10, 10, 50, 40, "Region*")])
    free = open_dataset(folder).samples[0]
    assert (free.name, free.image.shape) == ("free_10_10", (30, 40, 3))
    assert not free.instances.any()


def test_an_image_with_two_files_is_refused(folder):
    (folder / "made.png.geojson").write_bytes((folder / "made.geojson").read_bytes())
    with pytest.raises(InputError, match=r"2 GeoJSON files of made\.png"):
        open_dataset(folder)


def test_points_of_a_large_image_make_fields_of_their_own(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1100, 2400, 3), np.uint8)
    png(tmp_path / "large.png", image)
    places = [[1000, 30], [1030, 1090], [2390, 5]]
    write(tmp_path / "large.geojson", [pointed(places, "A")])
    samples = list(open_dataset(tmp_path).samples)
    assert [one.name for one in samples] == ["large_0_0", "large_2048_0", "large_1024_1024"]
    assert [len(one.points) for one in samples] == [1, 1, 1]
    assert samples[0].image.shape == (1100, 1152, 3)
    x, y = (samples[2].points[0, :2] + 0.5).astype(int)
    np.testing.assert_array_equal(samples[2].image[y, x], image[1090, 1030])
