"""What the tile-independent energy costs against the exact, per-tile one, on annotated fields.

    python benchmarks/normalisation.py --data HE_NUCLEI [--model cellvit-tiny-consep]

The network runs once a field; its maps are turned into cells with the edges normalised by fixed
constants (what `segment` does) and by every tile's own extremes (what the originals do).
"""

from pathlib import Path

import numpy as np
import tyro

from cellvit_jax import caches, checkpoint, metrics
from cellvit_jax.cells import Band, Piece, Planes, Remains, advance, painted
from cellvit_jax.data import Sample, read_folder
from cellvit_jax.inference.plan import MARGIN
from cellvit_jax.inference.predictor import Maps, Predictor
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.slides import ImageSlide, Tile, plan, read_tile

KINDS = ("tile", "fixed")


def main(data: Path, model: str = "cellvit-tiny-consep") -> None:
    """Print bPQ of both forms for every validation field, and the difference of the means."""
    caches.keep_compiled_programs()
    predictor = predictor_of(checkpoint.load(model))
    for collection in ("consep", "monuseg"):
        print(f"{collection}/val: bPQ by tile, bPQ fixed")
        scores = []
        for sample in read_folder(data / collection / "val"):
            scores.append(quality(sample, predictor))
            print(f"  {sample.name:28} {scores[-1][0]:.4f} {scores[-1][1]:.4f}", flush=True)
        exact, fixed = np.mean(scores, axis=0)
        print(f"  {'mean':28} {exact:.4f} {fixed:.4f}  fixed - tile = {fixed - exact:+.4f}")


def quality(sample: Sample, predictor: Predictor) -> list[float]:
    """bPQ of each of `KINDS` on one field."""
    slide = ImageSlide(sample.name, sample.image, predictor.card.mpp)
    tiles = plan(slide.size, predictor.card.tile, predictor.card.tile // MARGIN)
    maps = list(predictor(read_tile(slide, tile) for tile in tiles))
    found = (labels(slide.size, tiles, maps, kind) for kind in KINDS)
    return [metrics.panoptic_quality(sample.instances, instances)["pq"] for instances in found]


def labels(size: tuple[int, int], tiles: list[Tile], maps: list[Maps], kind: str) -> np.ndarray:
    """The label image of a field whose tiles have these maps."""
    pieces = []
    for tile, one in zip(tiles, maps, strict=True):
        (r0, c0), (r1, c1) = tile.core
        planes = Planes.of(one["binary"], one["hv"], one["types"], normalise=kind)
        core = planes.crop(r0 - tile.row, c0 - tile.col, r1 - tile.row, c1 - tile.col)
        pieces.append(Piece.of(core, r0, c0))
    _, table = advance(Remains(), Band(pieces, size[0], True), size[1], runs=True)
    return painted(table, size)


if __name__ == "__main__":
    tyro.cli(main)
