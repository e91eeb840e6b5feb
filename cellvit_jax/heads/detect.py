"""What a frozen network finds in annotated fields, kept on the disk by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cellvit_jax import __version__
from cellvit_jax.files import atomic_open
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import predictor_of, segment_image
from cellvit_jax.inference.slide_job import checksum
from cellvit_jax.models import CellViT
from cellvit_jax.slides import ImageSlide

STEP = 64  # pixels by which the tiles of fields smaller than the card's grow


@dataclasses.dataclass(frozen=True, eq=False)
class Detected:
    """The M cells of a field: `centroids` (M,2) x, y; `tokens` (M,D) float32; the network's own
    `types` (M,) ids; and `instances` (H,W) int32, which holds 1..M in the same order."""

    centroids: np.ndarray
    tokens: np.ndarray
    types: np.ndarray
    instances: np.ndarray


class Detector:
    """Finds the cells of fields, each only once: what was found lies in `folder`.

    Its name is a hash of weights, pixels and all that the result depends on; annotations are no
    part of it, so that further clicks cost no further run of the network. A damaged file is made
    anew.
    """

    def __init__(self, model: CellViT, folder: Path, batch_size: int | None = None):
        self.predictor = predictor_of(model, batch_size, tokens=True)
        self.dim, self.folder = model.config.embed_dim, folder
        self.runs = 0  # of the network
        made_by = (checksum(self.predictor.weights), self.predictor.card, __version__)
        self._made_by = repr(made_by).encode()

    def __call__(self, name: str, pixels: np.ndarray, mpp: float) -> Detected:
        """The cells of a field (H,W,3) uint8 with so many µm per pixel."""
        path = self.folder / f"{self.key(pixels, mpp)}.npz"
        kept = load(path)
        if kept is None:
            kept = detect(ImageSlide(name, pixels, mpp), self.predictor, self.dim)
            self.runs += 1
            self.folder.mkdir(parents=True, exist_ok=True)
            store(path, kept)
        return kept

    def key(self, pixels: np.ndarray, mpp: float) -> str:
        """The name under which a field's cells are kept."""
        code = hashlib.blake2b(self._made_by, digest_size=20)
        code.update(repr((pixels.shape, float(mpp))).encode())
        code.update(np.ascontiguousarray(pixels).data)
        return code.hexdigest()


def detect(image: ImageSlide, predictor: Predictor, dim: int) -> Detected:
    """The cells of an image, by a predictor that returns tokens of `dim` numbers."""
    longest = math.ceil(max(image.size) / STEP) * STEP
    found = segment_image(image, predictor, tile=min(predictor.card.tile, longest))
    cells = found.cells
    centroids = np.stack([cells.column(f"centroid_{axis}") for axis in "xy"], 1)
    tokens = np.zeros((0, dim), np.float32)
    if len(cells):
        flat = cells.table["token"].combine_chunks().flatten().to_numpy()
        tokens = flat.reshape(len(cells), -1)
    return Detected(centroids, tokens, cells.column("type"), found.instances.astype(np.int32))


def store(path: Path, detected: Detected) -> None:
    """Writes what was found, whole or not at all. Raises OutputError."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(detected))
    with atomic_open(path) as file:
        file.write(buffer.getvalue())


def load(path: Path) -> Detected | None:
    """What `store` wrote, None where it is not there or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Detected(**arrays)
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
