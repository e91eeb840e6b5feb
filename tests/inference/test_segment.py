"""The bundled network on the bundled image: what a user does first."""

import copy
import dataclasses

import cv2
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

import cellvit_jax as cj
from cellvit_jax import metrics, zoo
from cellvit_jax.cells.staining import haematoxylin
from cellvit_jax.errors import InputError
from cellvit_jax.inference.segment import predictor_of, segment_image
from cellvit_jax.slides import ImageSlide, open_image, plan
from cellvit_jax.stains import Staining, stained_as
from tests.networks import make, small_config

IMAGE = zoo.ASSETS / "he-consep.png"


@pytest.fixture(scope="module")
def model():
    return cj.load(zoo.DEFAULT)


@pytest.fixture(scope="module")
def predictor(model):
    return predictor_of(model)


@pytest.fixture(scope="module")
def found(predictor):
    return segment_image(open_image(IMAGE), predictor)


def points(cells) -> np.ndarray:
    return np.stack([cells.column("centroid_x"), cells.column("centroid_y")], axis=1)


def agreement(one: np.ndarray, other: np.ndarray, radius: float = 3.0) -> float:
    return metrics.detection(one, other, radius).f1


def test_the_bundled_image_has_cells_of_three_classes(found):
    counts = np.bincount(found.cells.column("type"), minlength=5)
    assert len(found.cells) > 150
    assert (counts[1:4] > 20).all()
    assert found.cells.mpp == pytest.approx(0.25)


def test_ids_boxes_and_areas_belong_to_the_instance_map(found):
    for row in found.cells.table.slice(0, 40).to_pylist():
        rows, columns = np.nonzero(found.instances == row["id"])
        assert len(rows) == row["area"]
        assert (rows.min(), rows.max() + 1) == (row["bbox_r0"], row["bbox_r1"])
        assert (columns.min(), columns.max() + 1) == (row["bbox_c0"], row["bbox_c1"])
        assert columns.mean() == pytest.approx(row["centroid_x"])
    assert set(np.unique(found.instances)) - {0} == set(found.cells.column("id"))


def test_nuclei_hold_more_haematoxylin_than_what_is_between_them(found):
    image = open_image(IMAGE).pixels
    between = haematoxylin(image)[found.instances == 0].mean()
    assert np.median(found.cells.column("haematoxylin_mean")) > between + 0.1
    assert (found.cells.column("haematoxylin_sd") > 0).all()


def test_probabilities_are_means_of_a_softmax(found):
    probabilities = np.array(found.cells.table["probabilities"].to_pylist())
    assert probabilities.shape == (len(found.cells), 5)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_no_two_outlines_overlap(found, tmp_path):
    """By more than a hundredth of the smaller one, although many are neighbours."""
    cj.exports.write(found.cells, tmp_path / "cells.parquet")
    outlines = shapely.from_wkb(pq.read_table(tmp_path / "cells.parquet")["geometry"].to_numpy())
    one, other = shapely.STRtree(outlines).query(outlines, predicate="dwithin", distance=1.5)
    pairs = one < other
    one, other = outlines[one[pairs]], outlines[other[pairs]]
    assert len(one) > 20  # outlines go through pixels' centres: those that touch are 1 apart
    shared = shapely.area(shapely.intersection(one, other))
    assert (shared <= 0.01 * np.minimum(shapely.area(one), shapely.area(other))).all()


def test_segment_takes_a_path_and_an_array(model, found):
    cells = cj.segment(open_image(IMAGE).pixels, model, mpp=0.25)
    assert cells.table.equals(found.cells.table)


def test_the_batch_size_does_not_change_the_cells(model, found):
    cells = cj.segment(IMAGE, model, batch_size=4)
    assert agreement(points(cells), points(found.cells)) > 0.995


def test_bfloat16_finds_the_same_cells(found):
    rough = segment_image(open_image(IMAGE), predictor_of(cj.load(zoo.DEFAULT, dtype=jnp.bfloat16)))
    assert metrics.panoptic_quality(found.instances, rough.instances)["dq"] >= 0.99


@pytest.mark.parametrize("shape", [(16, 16), (16, 300), (257, 40), (256, 256)])
def test_images_of_any_size_go_through(predictor, shape):
    pixels = np.ascontiguousarray(open_image(IMAGE).pixels[: shape[0], : shape[1]])
    found = segment_image(ImageSlide("part", pixels, 0.25), predictor)
    assert found.instances.shape == shape
    assert set(np.unique(found.instances)) - {0} == set(found.cells.column("id"))


def borders(labels: np.ndarray, columns: list[int]) -> tuple[int, int]:
    """Pairs of nucleus pixels on both sides of `columns`: those of two cells, and all."""
    left, right = labels[:, [c - 1 for c in columns]], labels[:, columns]
    both = (left > 0) & (right > 0)
    return int((both & (left != right)).sum()), int(both.sum())


@pytest.mark.parametrize("axis", [0, 1])
def test_cells_are_cut_no_more_at_seams_than_elsewhere(found, axis):
    cores = [tile.core[0][axis] for tile in plan(found.image.size, 256, 32)]
    seams = sorted(set(cores) - {0})
    labels = found.instances if axis else found.instances.T
    elsewhere = [c for c in range(1, labels.shape[1]) if c not in seams]
    (cut, pairs), (usual, of) = borders(labels, seams), borders(labels, elsewhere)
    assert seams
    assert pairs > 100  # nuclei do lie across the seams
    assert cut / pairs < 0.02 + usual / of


def test_another_resolution_gives_the_same_cells_in_its_own_pixels(predictor, found):
    pixels = cv2.resize(open_image(IMAGE).pixels, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    fine = segment_image(ImageSlide("fine", pixels, 0.125), predictor)
    assert fine.instances.shape == pixels.shape[:2]
    assert fine.cells.mpp == 0.125
    matched = (points(fine.cells) + 0.5) / 2 - 0.5
    assert agreement(matched, points(found.cells)) > 0.95
    areas = fine.cells.column("area").mean() / found.cells.column("area").mean()
    assert areas == pytest.approx(4, rel=0.05)


def test_the_label_map_at_another_resolution_lies_under_the_cells(predictor):
    image = open_image(IMAGE, mpp=0.4)
    found = segment_image(ImageSlide("coarse", image.pixels[:300, :300].copy(), 0.4), predictor)
    x, y = np.round(points(found.cells)).astype(int).T
    assert (found.instances[y, x] == found.cells.column("id")).mean() > 0.9


def test_an_unknown_resolution_is_taken_as_a_quarter_micrometre_and_said(model):
    pixels = np.full((64, 64, 3), 240, np.uint8)
    with pytest.warns(UserWarning, match=r"0\.25 µm per pixel"):
        cells = cj.segment(pixels, model)
    assert len(cells) == 0
    assert cells.mpp == 0.25


def test_a_model_of_normalised_images_is_shown_such_and_measures_what_is_there(model, found):
    image = found.image
    seen = dataclasses.replace(image, pixels=stained_as(image.pixels, Staining()))
    assert np.abs(seen.pixels.astype(int) - image.pixels).mean() > 2
    normalising = copy.copy(model)
    normalising.card = dataclasses.replace(model.card, stain="macenko")
    ours = segment_image(image, predictor_of(normalising)).cells
    theirs = segment_image(seen, predictor_of(model)).cells
    measured = ["haematoxylin_mean", "haematoxylin_sd"]
    assert ours.table.drop_columns(measured).equals(theirs.table.drop_columns(measured))
    assert (ours.column(measured[0]) != theirs.column(measured[0])).all()


def test_a_model_without_a_card_is_refused():
    with pytest.raises(InputError, match="no card"):
        cj.segment(np.zeros((64, 64, 3), np.uint8), make(small_config()), mpp=0.25)
