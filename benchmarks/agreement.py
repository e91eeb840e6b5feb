"""How far results hang on the size of the tiles, and how they compare with an annotated slide.

    python benchmarks/agreement.py [--model cellvit-tiny-consep]

Slides: CMU-1-Small-Region (0.499 µm/px) and a part of TCGA-V5-A7RE (0.2485), beside this checkout,
in tiles of 256, 512 and 1024 pixels: F1 of cells that are each other's nearest, within 1 µm. Then
MoNuSAC-A9K0_1 (0.194 µm/px) against its annotation: centroids within 3 µm, Hungarian assignment.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import tyro
from scipy.spatial import KDTree

from cellvit_jax import caches, checkpoint, metrics, zoo
from cellvit_jax.cells import Cells, joined
from cellvit_jax.inference.pipeline import rows
from cellvit_jax.inference.plan import planned
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.report import Report
from cellvit_jax.inference.segment import cells_of, predictor_of
from cellvit_jax.slides import Slide, open_slide
from cellvit_jax.slides.slide import Box

WSI = Path(__file__).resolve().parents[2] / "shared" / "data" / "wsi"
PLACES: dict[str, Box | None] = {
    "CMU-1-Small-Region.svs": None,
    "TCGA-V5-A7RE-part1.tiff": (1000, 6000, 3000, 8000),
}
TILES = (256, 512, 1024)
NEAR, PAIRED = 1.0, 3.0  # µm


def main(model: str = zoo.DEFAULT) -> None:
    """Print both tables."""
    caches.keep_compiled_programs()
    predictor = predictor_of(checkpoint.load(model))
    for name, roi in PLACES.items():
        slide = open_slide(WSI / name)
        found = {tile: points(segmented(slide, predictor, tile, roi)) for tile in TILES}
        for one, other in itertools.combinations(TILES, 2):
            a, b = found[one], found[other]
            print(f"{name}: {one} and {other} px: {len(a)}, {len(b)} cells, F1 {f1(a, b):.4f}")
    print(annotated(predictor))


def segmented(slide: Slide, predictor: Predictor, tile: int, roi: Box | None) -> Cells:
    """The cells of a slide from tiles of that side."""
    plan = planned(slide, predictor.card, tile=tile, roi=roi)
    table = joined(row.table for row in rows(plan, predictor, Report(slide.name)))
    return cells_of(table, plan, predictor.card)


def points(cells: Cells) -> np.ndarray:
    """Centroids (N, 2) in µm."""
    return np.stack([cells.column("centroid_x"), cells.column("centroid_y")], 1) * cells.mpp


def f1(one: np.ndarray, other: np.ndarray) -> float:
    """Of pairs of each other's nearest, up to `NEAR` apart."""
    distance, there = KDTree(other).query(one)
    _, back = KDTree(one).query(other)
    pairs = (distance <= NEAR) & (back[there] == np.arange(len(one)))
    return 2 * pairs.sum() / (len(one) + len(other))


def annotated(predictor: Predictor) -> str:
    """The detections in the annotated slide, in a line."""
    slide = open_slide(WSI / "MoNuSAC-A9K0_1.svs")
    truth = cv2.imread(str(WSI / "MoNuSAC-A9K0_1_instances.png"), cv2.IMREAD_UNCHANGED)
    tile = predictor.card.tile
    found = points(segmented(slide, predictor, tile, None))
    true = metrics.centroids(truth.astype(np.int32)) * slide.mpp
    scores = metrics.detection(true, found, radius=PAIRED)
    return (
        f"{slide.name}: {len(true)} annotated, {len(found)} found; precision "
        f"{scores.precision:.3f}, recall {scores.recall:.3f}, F1 {scores.f1:.3f} within {PAIRED} µm"
    )


if __name__ == "__main__":
    tyro.cli(main)
