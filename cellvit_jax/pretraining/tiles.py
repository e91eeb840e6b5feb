"""Tiles of slides and images: where they lie, and their pixels when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cellvit_jax.card import ModelCard
from cellvit_jax.data.lazy import Watch, unwatched
from cellvit_jax.errors import InputError
from cellvit_jax.inference.plan import known_mpp, planned
from cellvit_jax.pretraining.held import Held
from cellvit_jax.slides import ImageSlide, Resampled, Slide, resample_factor

THREADS = 4  # that look where tiles lie
Places = np.ndarray  # (N, 2) int64: row and column of the first pixel


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A slide or an image that is opened when it is needed, and perhaps what it shows.

    `label` is the index of a class. With a function of a module, or a `functools.partial` of one,
    worker processes get it cheaply.
    """

    name: str
    open: Callable[[], Slide]
    label: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles(Sequence[np.ndarray]):
    """Squares of `side` pixels at `mpp` µm each, (side,side,3) uint8, read at every access.

    `places` (N,3) int64 are the number of a picture, row and column. Threads may read at once.
    """

    pictures: tuple[Picture, ...]
    places: np.ndarray
    side: int
    mpp: float
    held: Held[int] = dataclasses.field(default_factory=Held)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        number, row, col = self.places[index].tolist()
        picture = self.pictures[number]
        view = self.held(number, lambda: opened(picture, self.mpp))
        return view.read(row, col, self.side, self.side)

    def label(self, index: int) -> int | None:
        """What the picture of a tile shows."""
        return self.pictures[int(self.places[index, 0])].label

    @property
    def labels(self) -> np.ndarray:
        """What the picture of each tile shows, (N,) int64. All must have been labelled."""
        return np.array([self.label(i) for i in range(len(self))], np.int64)

    def of(self, chosen: np.ndarray) -> Tiles:
        """Those of the pictures that are `chosen`, (pictures,) bool."""
        return dataclasses.replace(self, places=self.places[chosen[self.places[:, 0]]])

    def at_most(self, count: int) -> Tiles:
        """So many of them, spread evenly."""
        kept = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        return dataclasses.replace(self, places=self.places[kept])


def find(
    pictures: Sequence[Picture], side: int, mpp: float, *, watch: Watch = unwatched
) -> tuple[Tiles, int]:
    """All tiles of pictures, and how many pictures are too small for one.

    They lie side by side, spread evenly with as little overlap as can be. Of a slide it is those
    whose middle is in tissue; an image that does not say its resolution is taken to have `mpp`.
    Raises `InputError` where there are none.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(lambda one: places(one, side, mpp), pictures)
        found = list(watch(looked, "looking for tiles", 0, len(pictures)))
    numbered = [np.insert(part, 0, i, axis=1) for i, part in enumerate(found) if part is not None]
    small = sum(part is None for part in found)
    if not sum(map(len, numbered)):
        reason = f"all are smaller than {side}×{side} pixels" if small else "they show no tissue"
        raise InputError(f"there are no tiles in {described(pictures)}: {reason} at {mpp:g} µm")
    return Tiles(tuple(pictures), np.concatenate(numbered), side, mpp), small


def places(picture: Picture, side: int, mpp: float) -> Places | None:
    """Where the tiles of a picture lie; None if it is smaller than one."""
    view = opened(picture, mpp)
    if min(view.size) < side:
        return None
    plan = planned(view.slide, ModelCard((), mpp=mpp, tile=side), margin=0)
    rows, cols = ([first for first, *_ in spans] for spans in (plan.grid.rows, plan.grid.cols))
    corners = [(rows[row], cols[col]) for row, col in plan.places]
    at = np.array(corners, np.int64).reshape(-1, 2)
    y, x = ((at + side / 2) / view.factor - 0.5).T
    return at[plan.mask.holds(x, y)]


def opened(picture: Picture, mpp: float) -> Resampled:
    """The picture as it is at that resolution."""
    slide = picture.open()
    if isinstance(slide, ImageSlide) and slide.mpp is None:
        slide = dataclasses.replace(slide, mpp=mpp)
    return Resampled(slide, resample_factor(known_mpp(slide), mpp))


def described(pictures: Sequence[Picture]) -> str:
    """Some names and a number, for sentences."""
    names = ", ".join(picture.name for picture in pictures[:3])
    return names if len(pictures) <= 3 else f"{names} and {len(pictures) - 3} more"
