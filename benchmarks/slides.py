"""Large slides and a free network, for the programs beside this one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cellvit_jax import zoo
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.cells import edges

SHARED = Path(__file__).resolve().parents[2] / "shared"
TILE, CORE = 1024, 768
PATCH, WIDTH = 16, 384  # of tokens
CARD = ModelCard(cell_classes("Neoplastic", "Inflammatory", "Connective", "Dead", "Epithelial"))


def recorded(name: str = "nucls-1024") -> list[np.ndarray]:
    """Recorded binary, hv and type maps of one tile of 1024²."""
    with np.load(SHARED / "reference" / "postprocessing" / f"{name}.npz") as file:
        hv = np.stack([file["hv_x"], file["hv_y"]], -1).astype(np.float32)
        return [file["binary"], hv, file["type"]]


class RecordedNetwork:
    """Stands where a `Predictor` stands, and answers every tile with the same recorded maps."""

    def __init__(self, maps: list[np.ndarray], *, tokens: bool = False):
        self.card, self.batch_size, self.busy = CARD, 4, 0.0
        self.head, self.tokens = None, tokens
        binary, hv, types = maps
        classes = np.arange(len(CARD.classes))
        self.maps = {
            "binary": binary,
            "edge": edges(hv, "fixed"),
            "types": types,
            "probabilities": 255 * (types[..., None] == classes).astype(np.uint8),
        }
        if tokens:
            side = TILE // PATCH
            grid = np.random.default_rng(0).standard_normal((side, side, WIDTH), np.float32)
            self.maps["tokens"] = grid

    def __call__(self, tiles: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The maps, once a tile, each time as new arrays, as from a device."""
        for _ in tiles:
            yield {name: values.copy() for name, values in self.maps.items()}


def make_slide(path: Path, rows: int, cols: int) -> Path:
    """A pyramid in JPEG tiles of real tissue, of as many model tiles."""
    height, width = rows * CORE + TILE - CORE, cols * CORE + TILE - CORE
    source = np.asarray(Image.open(zoo.ASSETS / "he-consep.png").convert("RGB"))
    patch = np.pad(source, [(0, -n % 256) for n in source.shape[:2]] + [(0, 0)], "reflect")
    tags = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    tags |= {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for by in (1, 4, 16):
            shape = height // by, width // by, 3
            file.write(
                tiles_of(patch[::by, ::by], shape),
                shape=shape,
                dtype=np.uint8,
                **tags,
            )
    return path


def tiles_of(patch: np.ndarray, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """The patch over and over, in tiles of 256²."""
    for r, c in itertools.product(range(0, shape[0], 256), range(0, shape[1], 256)):
        rows, cols = ((np.arange(256) + n) % m for n, m in zip((r, c), patch.shape, strict=False))
        yield patch[np.ix_(rows, cols)]
