"""Random views of tiles, for tasks that compare what a network makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.pipeline import Batch
from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.pretraining.tiles import Tiles

try:
    import grain
except ImportError as error:
    raise MissingExtraError("grain", "train") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """`count` random squares of a tile, each resized to `side` pixels.

    Their own sides are from `smallest` to `largest` of the tile's (log-uniform).
    """

    count: int
    side: int
    smallest: float
    largest: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 1 or self.side < 1 or not 0 < self.smallest <= self.largest <= 1:
            raise InputError(
                f"crops must be one or more, with 0 < smallest ≤ largest ≤ 1, not {self.count} of "
                f"{self.smallest:g} to {self.largest:g} of a tile"
            )

    def __call__(
        self, tile: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
    ) -> np.ndarray:
        """(count,side,side,3) uint8 of a tile (T,T,3), each changed as `augmentation` says."""
        nothing = np.zeros(tile.shape[:2], np.int32)
        sample = Sample("tile", tile, nothing, None)
        low, high = (self.side / (share * len(tile)) for share in (self.largest, self.smallest))
        changed = dataclasses.replace(augmentation, zoom=1.0, zoom_range=(low, high))
        return np.stack([changed(sample, self.side, rng).image for _ in range(self.count)])


@dataclasses.dataclass(frozen=True)
class Views(grain.transforms.RandomMap):
    """The crops of a tile by name, and its `label` () int32 where the tiles have some.

    Element in: the number of a tile. Their order is that of `crops`.
    """

    tiles: Tiles
    crops: Mapping[str, Crops]
    augmentation: Augmentation

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        tile = self.tiles[element]
        views = {name: crops(tile, self.augmentation, rng) for name, crops in self.crops.items()}
        label = self.tiles.label(element)
        return views if label is None else views | {"label": np.asarray(label, np.int32)}


def stained() -> Augmentation:
    """Changes that leave the tissue what it is: place, turn, stain, colour, focus, noise."""
    return Augmentation(
        turn=1.0,
        flip_horizontally=0.5,
        flip_vertically=0.5,
        stain=0.8,
        colour=0.8,
        soften=0.5,
        noise=0.2,
    )
