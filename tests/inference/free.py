"""A network that costs nothing: it reads its maps off the pixels, which were made of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.cells import edges
from cellvit_jax.models import CellClassifier

CARD = ModelCard(cell_classes("Round"), tile=128)
RADIUS = 9
PINK = (235, 190, 215)


@dataclasses.dataclass
class FreeNetwork:
    """Stands where a `Predictor` stands."""

    card: ModelCard = CARD
    batch_size: int = 4
    seconds: float = 0.0  # a tile takes
    with_tokens: bool = False
    tokens: bool = True
    head: CellClassifier | None = None
    busy: float = 0.0
    weights: tuple = (np.arange(4),)

    calls: int = 0

    def __call__(self, tiles):
        for tile in tiles:
            self.calls += 1
            time.sleep(self.seconds)
            maps = maps_of(tile)
            maps["edge"] = edges(maps.pop("hv"), "fixed")
            yield maps | ({"tokens": tokens_of(tile)} if self.with_tokens else {})


def maps_of(pixels: np.ndarray) -> dict[str, np.ndarray]:
    binary = (pixels[..., 0] < 128).astype(np.uint8)
    hv = (pixels[..., 1:].astype(np.float32) - 128) / 127 * binary[..., None]
    probabilities = np.stack([1 - binary, binary], axis=-1).astype(np.float16)
    return {
        "binary": binary,
        "hv": hv,
        "types": binary.copy(),
        "probabilities": probabilities,
    }


def tokens_of(pixels: np.ndarray) -> np.ndarray:
    """Mean colours of squares of 16 pixels."""
    side = len(pixels) // 16
    return pixels.reshape(side, 16, side, 16, 3).mean((1, 3)).astype(np.float32)


def tissue(height: int, width: int, *, nuclei: int | None = None, seed: int = 0) -> np.ndarray:
    """Pixels (H, W, 3) of round nuclei on pink, touching now and then."""
    rng = np.random.default_rng(seed)
    count = height * width // 900 if nuclei is None else nuclei
    pixels = np.full((height, width, 3), PINK, np.uint8)
    for r, c in rng.uniform(0, 1, (count, 2)) * (height, width):
        r0, c0 = max(int(r) - RADIUS, 0), max(int(c) - RADIUS, 0)
        y, x = np.mgrid[r0 : min(r0 + 2 * RADIUS, height), c0 : min(c0 + 2 * RADIUS, width)]
        inside = np.hypot(y - r, x - c) < RADIUS
        values = 128 + 127 * np.stack([x - c, y - r], -1) / RADIUS
        window = pixels[y, x]
        window[inside] = np.concatenate([np.zeros((*y.shape, 1)), values], -1)[inside]
        pixels[y, x] = window
    return pixels


def write_slide(path: Path, pixels: np.ndarray, *, mpp: float | None = 0.25, **options) -> Path:
    """A pyramid in tiles, as scanners' software exports it, without loss."""
    tags = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"} | options
    if mpp:
        tags |= {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, metadata=None, **tags)
        file.write(pixels[::2, ::2].copy(), metadata=None, subfiletype=1, **tags)
    return path


def main(slide: str, out: str, ready: Callable[[], None] = lambda: None) -> None:
    """Segment a slide slowly, to be killed; `ready` is called when it begins."""
    from cellvit_jax.inference import journal
    from cellvit_jax.inference.run import Listed, Options, Task

    journal.PAUSE = 0.05
    task = Task(Path(out), "free", Options(export=("parquet", "geojson", "instances")), quiet=True)
    task.predictor = FreeNetwork(seconds=0.004)
    source = Listed(Path(slide))
    ready()
    task.segment(source, task.open(source))
