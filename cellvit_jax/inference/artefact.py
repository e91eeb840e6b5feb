"""A network as a compiled-ahead program: StableHLO for several platforms, and its weights.

    DIR/program.bin   what `jax.export` serialises: uint8 tiles in, reduced maps out, one batch size
    DIR/weights.npz   its inputs but the tiles, in order
    DIR/card.json     the model card

It runs wherever JAX does, without this package's networks and years after they have changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from cellvit_jax.card import ModelCard
from cellvit_jax.errors import CheckpointError, InputError, MissingExtraError
from cellvit_jax.files import replacing_directory
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.reduction import unpacked

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, CARD = "program.bin", "weights.npz", "card.json"


class Program:
    """What `load` returns: `tile_shape` (B,T,T,3), `card`, and the maps of a batch of tiles."""

    def __init__(self, exported: jax.export.Exported, weights: list[jax.Array], card: ModelCard):
        self.card, self.platforms = card, exported.platforms
        self.tile_shape = exported.in_avals[-1].shape
        self._call = lambda tiles: exported.call(weights, tiles)

    def __call__(self, tiles: np.ndarray) -> dict[str, np.ndarray]:
        """Maps as `Predictor` gives them, of uint8 tiles of `tile_shape`, stacked.

        Raises InputError for tiles of another shape or type.
        """
        if tiles.shape != self.tile_shape or tiles.dtype != np.uint8:
            raise InputError(
                f"this program takes uint8 tiles {self.tile_shape}, not {tiles.dtype} {tiles.shape}"
            )
        return unpacked(jax.device_get(self._call(tiles)))


def save(
    predictor: Predictor, folder: str | Path, side: int, platforms: Sequence[str] = PLATFORMS
) -> None:
    """Write the program of a predictor for tiles of that side, and its batch size.

    A batch is computed on one device. Raises InputError for unknown platforms, OutputError, and
    MissingExtraError without flatbuffers.
    """
    require_flatbuffers()
    if not platforms or not set(platforms) <= set(PLATFORMS):
        raise InputError(f"platforms are {', '.join(PLATFORMS)}, not {', '.join(platforms)!r}")
    exported = predictor.exported(side, platforms)
    with replacing_directory(Path(folder)) as place:
        (place / PROGRAM).write_bytes(exported.serialize())
        np.savez(place / WEIGHTS, *jax.device_get(predictor.inputs))
        (place / CARD).write_text(json.dumps(predictor.card.to_dict(), indent=1))


def load(folder: str | Path) -> Program:
    """The program in a folder. Raises CheckpointError for one that is none or not whole."""
    require_flatbuffers()
    folder = Path(folder)
    try:
        exported = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
        card = ModelCard.from_dict(json.loads((folder / CARD).read_text()))
        with np.load(folder / WEIGHTS) as stored:
            arrays = [stored[name] for name in stored.files]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} is not a whole program: {error}") from error
    return Program(exported, _typed(arrays, exported.in_avals[:-1]), card)


def _typed(arrays: Sequence[np.ndarray], avals: Sequence[Any]) -> list[jax.Array]:
    """NumPy's files do not know bfloat16: the program does."""
    if [a.shape for a in arrays] != [aval.shape for aval in avals]:
        raise CheckpointError("the weights are not those of the program")
    return [jax.device_put(a.view(aval.dtype)) for a, aval in zip(arrays, avals, strict=True)]


def require_flatbuffers() -> None:
    """Raises MissingExtraError where it is missing: `jax.export` writes with it."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("flatbuffers", "export") from error
