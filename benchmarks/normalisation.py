"""What the tile-independent energy costs against the exact, per-tile one, on annotated fields.

    python benchmarks/normalisation.py --data HE_NUCLEI [--model cellvit-tiny-consep]

The network runs once a field; its maps are turned into cells with the edges normalised by fixed
constants (what `segment` does) and by every tile's own extremes (what the originals do).
"""

from pathlib import Path

import jax
import numpy as np
import tyro

from cellvit_jax import caches, checkpoint, metrics
from cellvit_jax.cells import Band, Piece, Planes, Remains, advance, painted
from cellvit_jax.data import Sample, read_folder
from cellvit_jax.inference.plan import MARGIN
from cellvit_jax.inference.predictor import Maps
from cellvit_jax.models import CellViT, folded
from cellvit_jax.slides import ImageSlide, Tile, plan, read_tile

KINDS = ("tile", "fixed")
RUN = jax.jit(lambda network, images: folded(network)(images))


def main(data: Path, model: str = "cellvit-tiny-consep") -> None:
    """Print bPQ of both forms for every validation field, and the difference of the means."""
    caches.keep_compiled_programs()
    network = checkpoint.load(model)
    for collection in ("consep", "monuseg"):
        print(f"{collection}/val: bPQ by tile, bPQ fixed")
        scores = []
        for sample in read_folder(data / collection / "val"):
            scores.append(quality(sample, network))
            print(f"  {sample.name:28} {scores[-1][0]:.4f} {scores[-1][1]:.4f}", flush=True)
        exact, fixed = np.mean(scores, axis=0)
        print(f"  {'mean':28} {exact:.4f} {fixed:.4f}  fixed - tile = {fixed - exact:+.4f}")


def quality(sample: Sample, network: CellViT) -> list[float]:
    """bPQ of each of `KINDS` on one field."""
    card = network.card
    slide = ImageSlide(sample.name, sample.image, card.mpp)
    tiles = plan(slide.size, card.tile, card.tile // MARGIN)
    maps = [raw(network, read_tile(slide, tile)) for tile in tiles]
    found = (labels(slide.size, tiles, maps, kind) for kind in KINDS)
    return [metrics.panoptic_quality(sample.instances, instances)["pq"] for instances in found]


def raw(network: CellViT, pixels: np.ndarray) -> Maps:
    """The maps of one tile, with distances in place of edges."""
    images = (pixels[None] / np.float32(255) - network.card.mean) / network.card.std
    maps = jax.device_get(RUN(network, images.astype(np.float32)))
    binary, types = (
        maps[name][0].argmax(-1).astype(np.uint8)
        for name in ("nuclei_binary_map", "nuclei_type_map")
    )
    return {"binary": binary, "hv": maps["hv_map"][0], "types": types}


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
