"""One field at four resolutions: the same cells, in the same places."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial import KDTree

import cellvit_jax as cj
from cellvit_jax import zoo
from cellvit_jax.cells import Cells, joined
from cellvit_jax.inference.pipeline import rows
from cellvit_jax.inference.plan import planned
from cellvit_jax.inference.report import Report
from cellvit_jax.inference.segment import cells_of
from cellvit_jax.slides import ImageSlide, Resampled, open_image
from tests.inference.free import CARD, FreeNetwork, tissue

FIELD_MPP = 0.25
OTHERS = (0.20, 0.35, 0.50)  # µm per pixel


def at(pixels: np.ndarray, mpp: float) -> ImageSlide:
    """The field as a scanner of another resolution would have it."""
    view = Resampled(ImageSlide("field", pixels, FIELD_MPP), FIELD_MPP / mpp)
    return ImageSlide("field", view.read(0, 0, *view.size), mpp)


def micrometres(cells: Cells, mpp: float) -> np.ndarray:
    """Centroids (N, 2) from the field's corner."""
    return (np.stack([cells.column("centroid_x"), cells.column("centroid_y")], 1) + 0.5) * mpp


def matched(one: np.ndarray, other: np.ndarray, radius: float) -> np.ndarray:
    """Offsets (N, 2) of those that are each other's nearest and up to `radius` apart."""
    distance, there = KDTree(other).query(one)
    _, back = KDTree(one).query(other)
    pairs = (back[there] == np.arange(len(one))) & (distance <= radius)
    return other[there[pairs]] - one[pairs]


def free(slide: ImageSlide) -> Cells:
    plan = planned(slide, CARD)
    table = joined(row.table for row in rows(plan, FreeNetwork(), Report("field")))
    return cells_of(table, plan, CARD)


@pytest.fixture(scope="module")
def bundled() -> Callable[[ImageSlide], Cells]:
    model = cj.load(zoo.DEFAULT)
    return lambda slide: cj.segment(slide.pixels, model, mpp=slide.mpp)


def test_places_are_exact_where_the_network_sees_the_same():
    pixels = tissue(600, 800, nuclei=150)
    here = micrometres(free(at(pixels, FIELD_MPP)), FIELD_MPP)
    for mpp in OTHERS:
        there = micrometres(free(at(pixels, mpp)), mpp)
        offsets = matched(here, there, 1.0)
        assert len(offsets) >= 0.97 * max(len(here), len(there))  # touching ones may join
        assert np.abs(offsets.mean(0)).max() < 0.05


def test_the_bundled_network_finds_nuclei_in_the_same_places(bundled):
    pixels = open_image(zoo.ASSETS / "he-consep.png").pixels
    here = micrometres(bundled(at(pixels, FIELD_MPP)), FIELD_MPP)
    for mpp in OTHERS:
        there = micrometres(bundled(at(pixels, mpp)), mpp)
        pairs = matched(here, there, 3.0)
        near = np.hypot(*pairs.T) <= 1.0
        assert len(pairs) >= 0.96 * max(len(here), len(there))
        assert near.mean() >= 0.98
        assert np.abs(pairs.mean(0)).max() < 0.05
